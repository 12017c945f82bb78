"""A run's folder, its record, its costs."""
