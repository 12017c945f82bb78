"""A trained run as a web page on this machine; `python -m src.demo`."""
