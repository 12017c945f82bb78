"""What trained networks look like inside: the analyses of Figures 6 to 10 and 12, run by `python -m src.analyze`."""
