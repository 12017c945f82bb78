"""Image operations on whole batches, on any device."""
