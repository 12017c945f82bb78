"""Sums over runs: a run that extends another one holds that one's seconds too, and every second counts once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssat.results.page.html import render
from ssat.results.spent import total_spent
from ssat.runs.record import read_records
from tests.results.records import failed_record, load, make_record, save

WHEN = "2026-11-23T12:00:00+00:00"  # after the run before has finished


def parent(**more):
    return make_record("ssat", hash="aaaaaaaa", seconds=100.0, energy=energy(1.0)) | more


def energy(kwh: float | None, **more):
    return {"kwh": kwh, "co2_kg": 0.4 * kwh, "co2_kg_lacoste": 0.3 * kwh, "source": "x", "country": "USA"} | more


def child(name: str, seconds: float, kwh: float, *, inherited: dict | None, finished: bool = True):
    about = {"from": 12, "to": 24, "run": "runs/p", "hash": "aaaaaaaa", "finished": finished, "when": WHEN}
    about |= {} if inherited is None else {"inherited": inherited}
    return make_record("ssat", hash=name, seconds=seconds, energy=energy(kwh), extended=about)


HALF = {"seconds": 95.0, "kwh": 0.9, "co2_kg": 0.36, "co2_kg_lacoste": 0.27}


@pytest.mark.parametrize(
    ("runs", "seconds", "kwh"),
    [
        ([parent()], 100.0, 1.0),
        ([parent(), child("b", 250.0, 2.5, inherited=HALF)], 100 + 250 - 95, 1 + 2.5 - 0.9),
        ([child("b", 250.0, 2.5, inherited=HALF)], 250.0, 2.5),  # the run before is not there
        # Two that go on from the same run, with and without it.
        ([parent(), child("b", 250.0, 2.5, inherited=HALF), child("c", 400.0, 4.0, inherited=HALF)], 560.0, 5.7),
        ([child("b", 250.0, 2.5, inherited=HALF), child("c", 400.0, 4.0, inherited=HALF)], 555.0, 5.6),
        # A record from before the share was written down: the run before says it, where it had finished by then.
        ([parent(), child("b", 250.0, 2.5, inherited=None)], 250.0, 2.5),
        ([child("b", 250.0, 2.5, inherited=None)], 250.0, 2.5),
        # The run before was trained again since, with force=true: it has spent other seconds.
        ([parent(finished="2026-11-24T00:00:00+00:00"), child("b", 250.0, 2.5, inherited=HALF)], 350.0, 3.5),
        (  # and here the first one lies beside it
            [
                parent(),
                parent(name="again", started="2026-11-24", finished="2026-11-24T00:00:00+00:00"),
                child("b", 250.0, 2.5, inherited=HALF),
            ],
            355.0,
            3.6,
        ),
        # Interrupted then, and finished later: its seconds hold those that were taken over.
        (
            [parent(finished="2026-11-24T00:00:00+00:00"), child("b", 250.0, 2.5, inherited=HALF, finished=False)],
            255.0,
            2.6,
        ),
        # Energy beside another training is nobody's own.
        ([parent(energy=energy(1.0, shared=True)), child("b", 250.0, 2.5, inherited=HALF)], 255.0, 2.5),
        ([parent(), failed_record("scratch", hash="f")], 100.0, 1.0),
    ],
)
def test_every_second_counts_once(tmp_path: Path, runs: list[dict], seconds: float, kwh: float) -> None:
    records = load(tmp_path, *runs)
    for given in (records, records[::-1]):
        assert total_spent(given, "seconds") == pytest.approx(seconds)
        assert total_spent(given, "energy.kwh") == pytest.approx(kwh)


def test_a_copy_of_a_run_has_spent_nothing(tmp_path: Path) -> None:
    for group in ("a", "b"):
        save(tmp_path, parent(), group=group)
        save(tmp_path, child("b", 250.0, 2.5, inherited=HALF), group=group)
    assert total_spent(read_records(tmp_path)[0], "seconds") == pytest.approx(255.0)


def test_the_page_sums_once_and_says_that_the_rows_hold_both(tmp_path: Path) -> None:
    records = load(tmp_path, parent(seconds=3600.0), child("b", 3 * 3600.0, 2.5, inherited=HALF | {"seconds": 3600.0}))
    page = render(records)
    assert "1 run extends another one: its time, energy and CO2 hold those of the run before" in page
    assert ">3h00m" in page and ">4h00m" not in page and "2.60 kWh" in page


def test_nothing_measured_has_no_sum() -> None:
    assert total_spent([], "seconds") is None
