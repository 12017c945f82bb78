"""`python -m src.dashboard` in the repository is `ssat dashboard` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("dashboard")
