"""What runs write to beside their folder: Weights & Biases and codecarbon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

from ssat.commands.doctor.finding import Finding
from ssat.commands.doctor.machine import installed
from ssat.runs.energy import device_tdp

PLAUSIBLE_WATTS = 10  # codecarbon's table knows some processors only by the name of their family


def check_wandb() -> Iterator[Finding]:
    """Installed, and whether there is a key; nothing is sent."""
    if find_spec("wandb") is None:
        yield Finding("W&B", "warning", "not installed", "`make setup` installs it; logger=csv works without")
        return
    what = f"wandb {installed('wandb')}"
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled"):
        yield Finding("W&B", "ok", f"{what}, WANDB_MODE={os.environ['WANDB_MODE']}: logger=wandb uploads nothing")
        return
    if has_key():
        yield Finding("W&B", "ok", f"{what}, a key is set (not tried): logger=wandb uploads")
    else:
        yield Finding("W&B", "ok", f"{what}, no key: logger=wandb records offline, `wandb login` sets one")


def has_key() -> bool:
    """Whether W&B finds a key in the environment, netrc or its settings; the service is not asked."""
    before = os.environ.copy()
    os.environ |= {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}  # the first is W&B's own telemetry
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except Exception:  # a key that it cannot read
        return False
    finally:
        for name in ("WANDB_ERROR_REPORTING", "WANDB_SILENT"):
            os.environ.pop(name)
        os.environ |= {name: before[name] for name in before if name.startswith("WANDB_")}


def check_energy() -> Iterator[Finding]:
    """Whether power is measured by sensors or modelled."""
    from codecarbon.core.cpu import is_rapl_available

    from ssat.commands.doctor.machine import nvidia_driver

    driver = nvidia_driver()
    gpus = f"{driver.gpus} GPU(s) measured, " if driver and driver.gpus else ""
    what = f"codecarbon {installed('codecarbon')}: {gpus}"
    if is_rapl_available():
        yield Finding("energy", "ok", f"{what}CPU measured by its RAPL sensors")
        return
    tdp = device_tdp("cpu")
    text = f"{what}no CPU power sensors, modelled from the CPU's load" + (f" and {tdp:.0f} W" if tdp else "")
    if tdp and tdp >= PLAUSIBLE_WATTS:
        yield Finding("energy", "ok", text)
        return
    text += "; so little is hardly its rated power" if tdp else "; its rated power is unknown"
    cure = "set footprint.tdp_watts to the processor's rated power, for Lacoste's formula"
    yield Finding("energy", "warning", text, cure)
