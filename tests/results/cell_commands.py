"""The commands of some cells of Tables 3 to 7; `python -m tests.results.cell_commands` writes them into the docs."""

from __future__ import annotations

from ssat.config.words import CONF
from ssat.results.paper.paper import read_experiment

PAGE = CONF.parent / "docs" / "ssl_tasks.md"
BEGIN, END = "<!-- cells: python -m tests.results.cell_commands -->\n", "<!-- /cells -->"
CELLS = {  # name of the table: what stands above its commands, and its cells
    "table3": (
        "the four SSL+FT protocols; IN-1K adds up eight batches of 64 for one step",
        [(f"({number}) SSL+FT", "IN-1K" if number == 4 else "CIFAR-10") for number in (1, 2, 3, 4)],
    ),
    "table4": ("other auxiliary tasks", [(row, "CIFAR-10") for row in ("MAE", "SimCLR", "DINO")]),
    "table5": ("SSAT on medical images", [("ViT-T Scratch + SSAT", "PMNIST"), ("ViT-S Scratch + SSAT", "Chaoyang")]),
    "table6": (
        "Drloc in its published form, CE + 0.1 L: under Adam, which sees no common factor, lam = 0.5; and SSAT",
        [("CVT-13 + L_drloc", "ClipArt"), ("CVT-13 + SSAT", "ClipArt")],
    ),
    "table7": (
        "Drloc; Gani et al., 200 epochs of DINO with crops and 100 of fine-tuning; DeiT-Ti + L_guidance, and with SSAT",
        [
            ("CVT-13 + L_drloc", "CIFAR-10"),
            ("ViT (SSL+FT)", "CIFAR-10"),
            ("ViT + SSAT", "CIFAR-10"),
            ("DeiT-Ti + L_guidance", "CIFAR-100"),
            ("DeiT-Ti + L_guidance + SSAT", "CIFAR-100"),
        ],
    ),
}


def block() -> str:
    """The code block of the page."""
    lines = []
    for name, (about, cells) in CELLS.items():
        experiment = read_experiment(name)
        lines.append(f"# {name.replace('table', 'Table ')}: {about}")
        lines += [experiment.command(row, column).replace("'", "") for row, column in cells]
    return "\n".join(["```bash", *lines, "```", ""])


def written(text: str) -> str:
    """The page `text` with the block of today."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + block() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
