"""RankMe and the spectrum of features: known answers, runs, and the alarm on collapse."""

import json

import pytest
import torch

from ssat.results.page.html import render
from ssat.results.spectra import draw_spectra, shown_epochs
from ssat.runs.record import read_records
from ssat.runs.spectrum import FILE, PICTURE, read_spectra, write_spectra
from ssat.training.spectrum import COLLAPSED, collapse, rankme, spectrum
from tests.helpers import command, killed_after, largest_difference, record_of, train, weights

# A rate that makes the features of all digits the same within an epoch.
COLLAPSING = ("recipe.base_lr=3", "recipe.lr_rule=absolute", "on_nan=stop")


@pytest.mark.parametrize("dim", [1, 4, 33])
def test_orthogonal_features_of_equal_length_have_the_rank_of_their_dimension(dim):
    features = torch.eye(dim).repeat(5, 1) * 3
    assert spectrum(features).tolist() == pytest.approx([1 / dim] * dim)
    assert rankme(spectrum(features)) == pytest.approx(dim, rel=1e-4)


def test_features_on_one_line_have_rank_one():
    features = torch.rand(50, 1) @ torch.randn(1, 8)
    assert rankme(spectrum(features)) == pytest.approx(1, abs=1e-3)
    assert rankme(spectrum(torch.ones(50, 8))) == pytest.approx(1, abs=1e-3)
    assert rankme(spectrum(torch.zeros(50, 8))) == pytest.approx(1, abs=1e-3)


def test_rank_is_the_formula_of_the_paper_written_out():
    features = torch.randn(40, 6) @ torch.randn(6, 6)
    singular = torch.linalg.svd(features.double()).S
    p = singular / singular.sum() + 1e-7
    assert rankme(spectrum(features)) == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-6)


def test_fewer_images_than_dimensions_have_as_many_values_as_images():
    assert spectrum(torch.randn(3, 8)).shape == (3,)


def test_features_that_are_not_finite_have_no_rank_and_stop_nothing():
    features = torch.randn(9, 4)
    features[2, 1] = torch.nan
    assert rankme(spectrum(features)) != rankme(spectrum(features))


def test_collapse_names_the_epochs_and_whether_it_lasts():
    rows = [{"epoch": epoch, "test/rankme": value} for epoch, value in enumerate([9.0, 1.2, 1.5, 6.0])]
    found = {"epochs": [1, 2], "at_the_end": False, "rankme": 1.2, "bound": COLLAPSED}
    assert collapse([*rows, {"epoch": 4}], "test") == found
    assert collapse(rows[:3], "test") == found | {"at_the_end": True}
    assert collapse([rows[0], {"epoch": 1, "test/rankme": float("nan")}], "test") is None
    assert collapse(rows, "val") is None


def test_the_file_keeps_what_was_written_and_leaves_out_what_is_damaged(tmp_path):
    assert read_spectra(tmp_path) == {}
    write_spectra(tmp_path, {3: [0.75, 0.25], 0: [0.5, 0.5]})
    assert (tmp_path / FILE).read_text().splitlines()[0] == "epoch,1,2"
    assert read_spectra(tmp_path) == {0: [0.5, 0.5], 3: [0.75, 0.25]}
    with open(tmp_path / FILE, "a") as file:
        file.write("x,0.5,0.5\n4,nan,0.5\n\n5,2.0,0.1\n")
    assert list(read_spectra(tmp_path)) == [0, 3]
    (tmp_path / FILE).write_bytes(b"\xff\x00")
    assert read_spectra(tmp_path) == {}


def test_the_picture_shows_the_first_the_middle_and_the_last_epoch(tmp_path):
    spectra = {epoch: [0.9, 0.1] for epoch in (0, 4, 9, 14, 19)}
    assert shown_epochs(spectra) == [0, 9, 19]
    assert shown_epochs({7: [1.0]}) == [7]
    picture = draw_spectra(spectra, "Spectrum", tmp_path / PICTURE)
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.min() < 100
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_monitor_measures_pre_training_writes_its_files_and_changes_nothing_in_it(tmp_path, capsys):
    plain = train("mode=ssl", runs=tmp_path / "plain")
    watched = train("mode=ssl", "epochs=2", "monitor.rank_every=1", runs=tmp_path / "watched")
    assert plain.name == watched.name
    assert largest_difference(weights(plain, "pretrain"), weights(watched, "pretrain")) == 0
    (phase,) = record_of(watched)["phases"]
    spectra = read_spectra(watched / "pretrain")
    assert list(spectra) == [0, 1] and all(len(values) == 32 for values in spectra.values())
    for row in phase["history"]:
        values = torch.tensor(spectra[row["epoch"]], dtype=torch.float64)
        assert row["test/rankme"] == pytest.approx(rankme(values), rel=1e-4)
    assert phase["collapse"] is None and "collapsed" not in capsys.readouterr().out
    assert (watched / "pretrain" / PICTURE).is_file()
    page = render(read_records(tmp_path / "watched")[0])
    assert "Effective rank of the features" in page and "Spectrum of the features" in page


def test_the_monitor_measures_at_every_so_many_epochs_and_at_the_last(tmp_path):
    run = train("mode=scratch", "epochs=3", "monitor.rank_every=2", runs=tmp_path)
    assert list(read_spectra(run / "scratch")) == [1, 2]
    assert "rankme" in record_of(run)["metrics"]["test"]


def test_a_collapsed_encoder_raises_the_alarm(tmp_path, capsys):
    run = train("mode=scratch", "monitor.rank_every=1", *COLLAPSING, runs=tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if "have collapsed" in line]
    assert len(said) == 1 and said[0].startswith("scratch: the features have collapsed")
    found = record_of(run)["phases"][0]["collapse"]
    assert found["bound"] == COLLAPSED and 1 <= found["rankme"] < COLLAPSED
    assert "had collapsed" in render(read_records(tmp_path)[0])


def test_an_interrupted_run_ends_with_the_same_spectra(tmp_path):
    settings = ("mode=ssl", "epochs=3", "monitor.rank_every=1")
    whole = train(*settings, runs=tmp_path / "whole")
    with killed_after(FILE, 2):  # the second epoch's spectrum is there, and its checkpoint is not
        train(*settings, runs=tmp_path / "killed")
    resumed = train(*settings, runs=tmp_path / "killed")
    assert (whole / "pretrain" / FILE).read_bytes() == (resumed / "pretrain" / FILE).read_bytes()
    assert largest_difference(weights(whole, "pretrain"), weights(resumed, "pretrain")) == 0
    histories = [[row["test/rankme"] for row in record_of(run)["phases"][0]["history"]] for run in (whole, resumed)]
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_two_ranks_measure_the_rank_that_one_process_does(tmp_path):
    settings = ["mode=ssl", "mode.ssl_recipe.augment=null", "monitor.rank_every=1", "epochs=1"]
    one = train(*settings, "recipe.batch_size=16", runs=tmp_path / "one")
    assert command(*settings, "recipe.batch_size=8", "trainer=ddp_cpu", runs=tmp_path / "two").returncode == 0
    (two,) = (path.parent for path in (tmp_path / "two").glob("[!.]*/*/result.json"))
    first, second = (json.loads((run / "result.json").read_text())["metrics"]["test"]["rankme"] for run in (one, two))
    assert first["last"] == pytest.approx(second["last"], rel=1e-3)
    assert len(read_spectra(two / "pretrain")) == 1
