"""Videos: layouts of the sets, face crops, the clip store, and clips to train on."""
