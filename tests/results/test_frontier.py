"""The grid of images and steps in which SSAT is compared with scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ssat.results.frontier import Place, frontier_table, frontiers
from ssat.results.page.html import render
from tests.results.records import load, make_record

BOTH = ("scratch", "ssat")


def run(
    mode: str, images: int, steps: int, accuracy: float, *, seed: int = 0, lam: float | None = None, **data: Any
) -> dict[str, Any]:
    record = make_record(mode, accuracy=accuracy, seed=seed)
    config = record["config"]
    config["data"] |= {"samples_per_class": images // 10} | data
    config["epochs"] = steps // 100
    if lam is not None:
        config["mode"]["lam"] = lam
    record["data_fingerprint"]["splits"] = {"train": images, "test": 10_000}
    return record | {
        "steps": steps,
        "hash": f"{images:04x}{steps // 100:02x}{seed}{ord(mode[1]) % 16:x}{lam or ''}"[:12],
    }


def grid(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """Two numbers of images and two of steps, from scratch and with SSAT, which gains with more steps."""
    found = [run("scratch", images, steps, 40.0) for images in (500, 2000) for steps in (1000, 4000)]
    found += [run("ssat", images, steps, 40.0 + steps / 100) for images in (500, 2000) for steps in (1000, 4000)]
    return [*found, *more]


def test_each_place_has_the_difference_of_its_runs(tmp_path: Path) -> None:
    (frontier,) = frontiers(load(tmp_path, *grid()))
    assert (frontier.images, frontier.steps) == ([500, 2000], [1000, 4000])
    assert frontier.scratch[Place(2000, 4000)] == 40.0
    assert {place: gain.points for place, gain in frontier.gains["SSAT"].items()} == {
        Place(500, 1000): 10.0,
        Place(500, 4000): 40.0,
        Place(2000, 1000): 10.0,
        Place(2000, 4000): 40.0,
    }


def test_a_setting_of_ssat_has_one_name_wherever_it_was_run(tmp_path: Path) -> None:
    runs = [run("scratch", images, steps, 40.0) for images in (500, 2000) for steps in (1000, 4000)]
    runs += [run("ssat", 500, 1000, 41.0, lam=0.1), run("ssat", 500, 1000, 42.0, lam=0.5)]
    runs += [run("ssat", 2000, 4000, 43.0, lam=0.5)]  # alone in its place
    (frontier,) = frontiers(load(tmp_path, *runs))
    assert {name: len(gains) for name, gains in frontier.gains.items()} == {"SSAT (lam=0.1)": 1, "SSAT (lam=0.5)": 2}


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([run(m, 500, s, 40.0) for m in BOTH for s in (1000, 4000)], id="one-number-of-images"),
        pytest.param([run(m, i, 1000, 40.0) for m in BOTH for i in (500, 2000)], id="one-number-of-steps"),
        pytest.param([run("scratch", i, s, 40.0) for i in (500, 2000) for s in (1000, 4000)], id="scratch-alone"),
        pytest.param([run("ssat", i, s, 40.0) for i in (500, 2000) for s in (1000, 4000)], id="ssat-alone"),
        pytest.param(
            [run(m, i, i * 2, 40.0, patch_size=i) for m in BOTH for i in (500, 2000)],
            id="other-settings",
        ),
    ],
)
def test_fewer_is_no_grid(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    assert frontiers(load(tmp_path, *runs)) == []


def test_table_and_page_show_the_gains_and_colour_those_of_several_seeds(tmp_path: Path) -> None:
    more = [run(mode, 500, 4000, 40.0 + 40 * (mode == "ssat"), seed=1) for mode in BOTH]
    records = load(tmp_path, *grid(*more))
    console = Console(width=100)
    with console.capture() as captured:
        console.print(frontier_table(frontiers(records)[0]))
    text = captured.get()
    assert "4,000" in text and "+10.0 ± " in text and text.count("40.0") >= 4
    page = render(records)
    assert page.count('class="n is-above"') == 1  # the one place with two seeds
    assert "Images or steps?" in page and "Images or steps?" not in render(records[:2])
