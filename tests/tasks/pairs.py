"""Which SSL task serves which encoder, found by trying; `python -m tests.tasks.pairs` writes the docs' table."""

from __future__ import annotations

from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.training.build import build_encoder
from ssat.training.tasks import build_ssl

PAGE = CONF.parent / "docs" / "ssl_tasks.md"
BEGIN, END = "<!-- pairs: python -m tests.tasks.pairs -->\n", "<!-- /pairs -->"
# One encoder of each kind; the others of a kind differ in width and depth only.
ENCODERS = {
    "vit_t": "vit_t, vit_s, vit_b, vit_2m8, deit_ti, vit_micro",
    "sl_vit": "sl_vit",
    "timm": "timm (plain ViTs)",
    "cct_2": "cct_2, cct_7",
    "cvt_13": "cvt_13",
    "swin_t": "swin_t",
    "resnet_50": "resnet_50",
    "resnet_56": "resnet_56",
    "videomae_micro": "videomae_s, videomae_b, videomae_micro (clips)",
}
COMBINED = ("several", "mae_guidance")
TASKS = sorted(path.stem for path in (CONF / "ssl").glob("*.yaml") if path.stem not in COMBINED)


def configuration(encoder: str, task: str) -> Run:
    words = ["data=cifar10", f"encoder={encoder}", f"ssl={task}"]
    words += ["encoder.name=vit_tiny_patch16_224"] if encoder == "timm" else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("train", overrides=words))


def encoder_of(name: str) -> Encoder:
    config = configuration(name, "mae")
    torch.manual_seed(0)
    return build_encoder(config, config.mode.phases[0])


def refusal(name: str, encoder: Encoder, task: str) -> str | None:
    """Why `task` does not serve `encoder`; None when a training step of it reaches the encoder with a gradient."""
    config = configuration(name, task)
    try:
        ssl = build_ssl(config, config.mode.phases[0], encoder)
    except UserError as error:
        return str(error)
    images = torch.randn(2, 3, *encoder.img_size)
    views = tuple(torch.randn_like(view) for view in ssl.blank_views(images))
    batch = Batch(images, torch.zeros(2, dtype=torch.int64), views=views, indices=torch.arange(2))
    loss, features, _ = ssl(encoder, batch, True)
    loss.backward()
    assert loss.isfinite()
    assert features is not None
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    encoder.zero_grad()
    return None


def table() -> str:
    """Markdown: a row per encoder, a column per task, and below it the reasons of the gaps."""
    reasons: dict[str, int] = {}
    rows = []
    for name, shown in ENCODERS.items():
        encoder = encoder_of(name)
        cells = []
        for task in TASKS:
            reason = refusal(name, encoder, task)
            reason = reason and reason.replace(type(encoder).__name__, "the encoder").replace(f"ssl={task}", "the task")
            cells.append("yes" if reason is None else f"no ({reasons.setdefault(reason, len(reasons) + 1)})")
        rows.append(f"| {shown} | " + " | ".join(cells) + " |")
    head = "| encoder | " + " | ".join(f"`{task}`" for task in TASKS) + " |\n|" + "---|" * (len(TASKS) + 1)
    notes = "\n".join(f"{number}. {reason}" for reason, number in reasons.items())
    return "\n".join([head, *rows]) + f"\n\nWhat the refused commands say:\n\n{notes}\n"


def replaced(page: str) -> str:
    """`page` with the table that is true now."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    Path(PAGE).write_text(replaced(PAGE.read_text()))
