"""`python -m src.doctor` in the repository is `ssat doctor` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("doctor")
