"""`python -m src.embed` in the repository is `ssat embed` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("embed")
