"""`python -m src.analyze` in the repository is `ssat analyze` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("analyze")
