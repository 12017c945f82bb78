"""Is this copy of the framework, on this machine, fit to train? The command is `python -m src.doctor`."""
