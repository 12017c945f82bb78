"""What watches a training phase: history, progress, guards, pictures and meters."""
