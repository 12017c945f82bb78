"""`python -m src.advise` in the repository is `ssat advise` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("advise")
