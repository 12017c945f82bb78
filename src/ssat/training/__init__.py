"""The joint training step and the phases around it."""

from ssat.core.libraries import load

load("lightning.pytorch", "timm")  # before a module here imports them with all that they take along
