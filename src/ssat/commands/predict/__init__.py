"""A trained run on files of no set; `python -m src.predict`."""
