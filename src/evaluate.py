"""`python -m src.evaluate` in the repository is `ssat evaluate` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("evaluate")
