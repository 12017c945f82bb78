"""Train a vision transformer on little data: jointly on labels and on a self-supervised auxiliary task."""

__version__ = "0.2.0"
