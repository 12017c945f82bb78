"""`python -m src.train` in the repository is `ssat train` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("train")
