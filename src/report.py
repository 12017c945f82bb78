"""`python -m src.report` in the repository is `ssat report` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("report")
