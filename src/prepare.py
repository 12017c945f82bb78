"""`python -m src.prepare` in the repository is `ssat prepare` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("prepare")
