"""`python -m src.predict` in the repository is `ssat predict` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("predict")
