"""What a run will take, from a few timed batches."""
