"""What everything else may use: errors, batches, random numbers, processes, files."""
