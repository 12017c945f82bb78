"""`python -m src.demo` in the repository is `ssat demo` elsewhere."""

from ssat.commands.__main__ import main

if __name__ == "__main__":
    main("demo")
