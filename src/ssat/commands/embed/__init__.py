"""Features of images and their map; `python -m src.embed`."""
