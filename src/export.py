"""`python -m src.export` in the repository is `ssat export` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("export")
