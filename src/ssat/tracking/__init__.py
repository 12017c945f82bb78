"""Weights & Biases: runs, names and dashboards."""
