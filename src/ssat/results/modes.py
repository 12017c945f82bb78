"""The names of the modes in reports."""

from __future__ import annotations

MODE_NAMES = {
    "scratch": "scratch",
    "ssl_ft": "SSL+FT",
    "ssat": "SSAT",
    "finetune": "fine-tuning",
    "ssl": "SSL",
    "linear": "linear probe",
}


def mode_name(mode: str) -> str:
    """The name that reports show for `mode`; a mode without one is shown as it is."""
    return MODE_NAMES.get(mode, mode)
