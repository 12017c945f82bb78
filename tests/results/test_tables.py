from pathlib import Path

import pytest
from rich.console import Console

from ssat.core.words import duration
from ssat.results.tables import COLUMNS, legend, runs_table, short_name, to_markdown
from ssat.results.text import quantity
from ssat.runs.record import Record
from tests.results.records import failed_record, load, make_record


def shown(records: list[Record], width: int) -> str:
    console = Console(width=width, force_terminal=False, record=False)
    with console.capture() as capture:
        console.print(runs_table(records, width=width))
    return capture.get()


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    runs = [
        make_record(mode, accuracy=accuracy) for mode, accuracy in (("scratch", 85), ("ssl_ft", 83.1), ("ssat", 81.94))
    ]
    return load(tmp_path, *runs)


def test_a_hundred_columns_show_accuracy_costs_and_parameters(records: list[Record]):
    text = shown(records, 100)
    assert "vit_micro on digits" in text
    [line] = [line for line in text.splitlines() if " SSAT " in line]
    assert " ".join(line.split()[1:]) == "SSAT 0 81.94 82.44 (ep 11) 38 s 0.404 Wh 0.149 g 512 61.5 mg"


def test_sixty_columns_keep_mode_and_accuracy_on_one_line_each(records: list[Record]):
    lines = shown(records, 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert [line.split()[:4] for line in lines[-3:]] == [
        [records[0].text("hash"), "scratch", "0", "85.00"],
        [records[1].text("hash"), "SSL+FT", "0", "83.10"],
        [records[2].text("hash"), "SSAT", "0", "81.94"],
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_no_line_is_wider_than_the_terminal_and_none_wraps(tmp_path: Path, width: int):
    runs = [make_record("ssat", seed=seed, encoder=encoder) for seed in range(3) for encoder in ("vit_t", "vit_micro")]
    lines = shown(load(tmp_path, *runs, failed_record(hash="0")), width).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("SSAT") or " SSAT " in line for line in lines) == 9  # 7 runs and 2 means


def test_several_seeds_get_a_line_of_mean_and_deviation(tmp_path: Path):
    records = load(tmp_path, *(make_record(seed=seed, accuracy=80.0 + seed) for seed in range(3)))
    assert any(
        line.startswith("mean of 3 seeds") and "81.00 ± 1.00" in line for line in shown(records, 100).splitlines()
    )


def test_one_seed_gets_no_mean(records: list[Record]):
    assert "±" not in shown(records, 200)


def test_a_failed_run_is_marked_and_its_empty_values_stay_empty(tmp_path: Path):
    [line] = [line for line in shown(load(tmp_path, failed_record()), 100).splitlines() if " SSAT " in line]
    assert line.split()[1:] == ["SSAT", "0", "failed"]


def test_a_run_true_to_the_paper_has_no_dagger(tmp_path: Path):
    marked, plain = make_record(data="cifar10"), make_record(data="cifar10", faithful=True)
    assert "†" in shown(load(tmp_path / "a", marked), 200) and "†" not in shown(load(tmp_path / "b", plain), 200)


def test_each_data_set_has_a_heading_and_its_own_deciding_number(tmp_path: Path):
    made = [make_record(seed=seed, data=data, hash=f"{data}{seed}") for data in ("digits", "mine") for seed in (0, 1)]
    labels = make_record("scratch", data="mine", hash="several")
    labels["config"]["data"]["labels"] = "labels.csv"
    labels["metrics"]["test"] = {"map": {"last": 0.91234, "best": 0.92, "best_epoch": 3}}
    balanced = make_record("scratch", data="digits", hash="equal")
    balanced["config"]["monitor"] = {"select": "balanced_acc"}
    balanced["metrics"]["test"]["balanced_acc"] = {"last": 55.5}
    text = shown(load(tmp_path, *made, labels, balanced), 80)
    parts = dict(part.split("\n", 1) for part in text.replace("vit_micro on ", "\0").split("\0")[1:])
    parts = {title.strip(): part for title, part in parts.items()}
    assert [*parts] == ["digits", "mine, several labels", "mine"]
    assert ["mAP" in part for part in parts.values()] == [False, True, False]
    assert "0.9123" in parts["mine, several labels"]
    assert "balanced %" in parts["digits"] and "55.50" in parts["digits"] and "balanced" not in parts["mine"]


def test_a_name_of_the_users_own_is_shown_by_its_end(tmp_path: Path):
    own, automatic = load(tmp_path, make_record(name="mine", hash="00000000"), make_record(hash="1f2e3d4c"))
    assert {short_name(own), short_name(automatic)} == {"mine-00000000", "1f2e3d4c"}


def test_names_are_no_markup(tmp_path: Path):
    assert "[red]x[/red]" in shown(load(tmp_path, make_record(data="[red]x[/red]")), 200)


def test_markdown_has_every_column_and_run(records: list[Record]):
    lines = to_markdown(records).splitlines()
    assert len(lines) == 2 + len(records)
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}


def test_runs_of_videos_are_counted_in_clips(tmp_path: Path):
    images, videos = make_record(), make_record("scratch")
    videos["config"]["data"]["frames"] = 16
    assert "images/s" in to_markdown(load(tmp_path / "a", images))
    assert "| clips/s |" in to_markdown(load(tmp_path / "b", videos))
    both = load(tmp_path / "c", images, videos)
    assert "| images or clips/s |" in to_markdown(both)
    assert legend(both).endswith("one image's or one clip's forward passes in training")


def test_markdown_escapes_the_column_separator(tmp_path: Path):
    assert "a\\|b" in to_markdown(load(tmp_path, make_record(data="a|b")))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.26, "0.3 s"), (42, "42 s"), (125, "2m05s"), (3599.8, "1h00m"), (11_220, "3h07m")]
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0404, "40.4 mWh"),
        (0.404, "0.404 Wh"),
        (100, "100 Wh"),
        (999.9, "1.00 kWh"),
        (5960, "5.96 kWh"),
        (0, "0.00 mWh"),
    ],
)
def test_quantities_have_three_digits_and_a_prefix(value: float, text: str):
    assert quantity(value, "Wh") == text
