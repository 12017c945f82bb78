"""Videos: layouts of the sets, face crops, the clip store, and clips to train on."""

SETS = ("ffpp", "dfdc", "dfdcp", "video_folder")  # that python -m src.prepare makes clips of
