"""Parameters, multiply-accumulates and CO2 against the paper's numbers and hand counts."""

import sys
import tempfile
from functools import partial

import pytest
import torch
from torch import nn

from ssat.core.errors import UserError
from ssat.encoders.videomae import VideoTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.results.page.html import _tiles
from ssat.results.page.notes import notes
from ssat.results.terminal import comparison_lines
from ssat.runs import footprint
from ssat.runs.energy import EnergyMeter, check_country
from ssat.runs.footprint import count_macs, count_parameters, count_step_macs, lacoste_co2, macs_of
from ssat.runs.neighbours import Presence
from ssat.runs.record import Record
from ssat.tasks.dino import DINO
from ssat.tasks.reconstruction import Reconstruction
from ssat.tasks.simclr import SimCLR
from ssat.tasks.videomae import VideoMAE
from ssat.tracking.names import figures
from ssat.training.callbacks.meter import Meter
from tests.helpers import record_of, train

T, S = {"embed_dim": 192, "num_heads": 3}, {"embed_dim": 384, "num_heads": 6}
DECODER_WIDTH = 128


def hand_macs(img_size: int, patch_size: int, dim: int, classes: int) -> dict[str, float]:
    """Matrix products of the two passes, written out."""

    def block(tokens: int, width: int) -> int:
        return 12 * tokens * width**2 + 2 * tokens**2 * width

    length = (img_size // patch_size) ** 2
    pixels, wide = 3 * patch_size**2, DECODER_WIDTH
    full = length * pixels * dim + 12 * block(length + 1, dim) + dim * classes
    seen = length // 4 + 1
    encoder = length * pixels * dim + 12 * block(seen, dim)
    decoder = seen * dim * wide + 2 * block(length + 1, wide) + (length + 1) * wide * pixels
    return {"full": full, "auxiliary": encoder + decoder, "both": full + encoder + decoder}


@pytest.mark.parametrize(
    ("img_size", "patch_size", "classes", "size", "gmacs"),
    [
        (224, 16, 1000, T, (1.258, 0.4256, 1.684)),
        (224, 16, 1000, S, (4.608, 1.265, 5.873)),
        (32, 2, 10, T, (1.669, 0.502, 2.171)),
    ],
    ids=["T-224", "S-224", "T-32"],
)
def test_macs_are_the_specs_within_half_a_percent(img_size, patch_size, classes, size, gmacs):
    encoder = VisionTransformer(img_size, patch_size, **size)
    task, head = Reconstruction(encoder), nn.Linear(encoder.num_features, classes)
    macs = count_macs(encoder, task, (3, img_size, img_size), head=head)
    assert [macs[key] / 1e9 for key in ("full", "auxiliary", "both")] == pytest.approx(gmacs, rel=0.005)
    by_hand = hand_macs(img_size, patch_size, size["embed_dim"], classes)
    assert macs == pytest.approx(by_hand, rel=2e-4)


def test_the_macs_of_shapes_alone_are_those_of_computing(monkeypatch):
    encoder = VideoTransformer(4, 32, embed_dim=32, depth=1, num_heads=2)
    parts = encoder, VideoMAE(encoder, decoder_depth=1), (3, 4, 32, 32)
    head = nn.Linear(encoder.num_features, 2)
    computed = footprint.count_all_macs(*parts, head=head)
    monkeypatch.setattr(footprint, "LARGE", 0)
    assert footprint.count_all_macs(*parts, head=head) == computed
    assert computed["step"] > 2 * computed["full"] > 0
    assert not any(parameter.is_meta for parameter in encoder.parameters()) and encoder.training


def test_videomae_b_is_counted_in_seconds():
    encoder = VideoTransformer(16, 224, embed_dim=768, num_heads=12)
    macs = footprint.count_all_macs(encoder, None, (3, 16, 224, 224), head=nn.Linear(encoder.num_features, 2))
    assert macs["full"] == 180_344_587_776  # 180.3 GMACs; on a CPU computing these passes took a minute


def test_counting_keeps_the_training_mode_and_draws_no_mask():
    encoder = VisionTransformer(8, 2, embed_dim=16, depth=1, num_heads=2)
    task = Reconstruction(encoder, decoder_dim=16, decoder_heads=2)
    encoder.train(), task.train()
    count_macs(encoder, task, (3, 8, 8))
    assert encoder.training
    assert task.training
    assert task.draws.item() == 0


def test_without_a_task_there_is_only_the_full_pass():
    encoder = VisionTransformer(8, 2, embed_dim=16, depth=1, num_heads=2)
    macs = count_macs(encoder, None, (3, 8, 8))
    assert macs["auxiliary"] == 0
    assert macs["both"] == macs["full"] > 0


def test_a_linear_layer_costs_its_products():
    layer = nn.Linear(7, 5)
    assert macs_of(lambda: layer(torch.zeros(3, 7))) == 3 * 7 * 5


def test_parameters_are_counted_with_and_without_the_task():
    encoder = VisionTransformer(8, 2, embed_dim=16, depth=1, num_heads=2)
    task, head = Reconstruction(encoder, decoder_dim=16, decoder_heads=2), nn.Linear(16, 3)
    counts = count_parameters(encoder, head, task)
    expected = sum(p.numel() for p in [*encoder.parameters(), *head.parameters()]) - 17 * 16
    assert counts["inference"] == expected
    assert counts["training"] == expected + sum(p.numel() for p in task.parameters()) - 17 * 16
    assert count_parameters(encoder, head, None) == {"inference": expected, "training": expected}


@pytest.mark.parametrize(("hours", "kilograms"), [(60, 5.96), (55, 5.46), (82, 8.15), (74, 7.35), (104, 10.33)])
def test_co2_reproduces_table_3(hours, kilograms):
    assert lacoste_co2(hours, tdp_watts=230, intensity=0.432) == pytest.approx(kilograms, abs=0.01)


def test_co2_counts_every_device():
    assert lacoste_co2(60, devices=1, tdp_watts=230, intensity=0.432) == pytest.approx(5.9616)
    assert lacoste_co2(30, devices=2, tdp_watts=230, intensity=0.432) == pytest.approx(5.9616)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Reconstruction, 1.30),
        (SimCLR, 2.0),
        (partial(SimCLR, share="third"), 3.0),
        (DINO, 2.67),
        (partial(DINO, local_views=4, local_size=16), 3.54),
        (partial(DINO, local_views=8, local_size=16), 4.41),
    ],
)
def test_a_step_of_each_task_costs_its_known_multiple_of_scratch(task, expected):
    encoder = VisionTransformer(32, 2, embed_dim=192, depth=12, num_heads=3)
    head = nn.Linear(192, 10)
    scratch = count_step_macs(encoder, None, (3, 32, 32), head=head)
    assert count_step_macs(encoder, task(encoder), (3, 32, 32), head=head) / scratch == pytest.approx(
        expected, rel=0.02
    )


def test_counting_leaves_modes_and_gradients_as_they_were():
    encoder = VisionTransformer(8, 4, embed_dim=8, depth=1, num_heads=1).train()
    task = DINO(encoder, out_dim=8).eval()
    count_step_macs(encoder, task, (3, 8, 8))
    assert encoder.training and not task.training
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_failure_of_codecarbon_is_one_line_and_no_energy(monkeypatch, capsys):
    meter = EnergyMeter("FRA")
    meter.start()
    assert meter.read()["source"].startswith("codecarbon")
    monkeypatch.setattr(meter._tracker, "flush", lambda: 1 / 0)
    assert meter.read() == meter.read() == meter.stop() == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "footprint.energy: codecarbon failed (division by zero), so the energy is not recorded"


def test_energy_of_a_part_of_the_seconds_is_none_of_the_phase():
    measured = {"kwh": 2.0, "co2_kg": 1.0, "source": "codecarbon"}
    meter = Meter(None)
    meter.load_state_dict({"seconds": 5.0, "kwh": 0.0, "co2_kg": 0.0, "source": None})
    assert meter._add(measured)["source"] is None  # the 5 seconds before were not measured
    meter.load_state_dict({"seconds": 5.0, **measured})
    assert meter._add({})["source"] is None
    assert meter._add(measured)["kwh"] == 4.0


def test_energy_without_codecarbon_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon.input", None)
    with pytest.raises(
        UserError, match=r"^footprint\.energy=true needs the package codecarbon .*footprint\.energy=false$"
    ):
        check_country("FRA")


def test_trainings_at_the_same_time_know_of_each_other_whoever_ends_first(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    alone = Presence()
    assert alone.shared is False
    alone.leave()
    first, second = Presence(), Presence()
    second.leave()
    third = Presence()
    assert first.shared is third.shared is True
    first.leave(), third.leave()
    assert not list((tmp_path / "ssat-trainings").iterdir())
    (tmp_path / "ssat-trainings" / "killed").touch()
    after = Presence()
    assert after.shared is False
    after.leave()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert Presence().shared is None


def test_energy_that_runs_shared_is_marked_and_no_sum_has_it(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    words = ("mode=scratch", "epochs=1", "footprint.energy=true")
    own = train(*words, runs=tmp_path / "runs")
    other = Presence()
    shared = train(*words, "seed=1", runs=tmp_path / "runs")
    other.leave()
    records = [Record(run / "result.json", "", record_of(run)) for run in (own, shared)]
    assert [record.get("energy.shared") for record in records] == [False, True]
    assert all(record.get("energy.kwh") > 0 for record in records)
    assert records[1].number("energy.kwh") is None
    tile = _tiles(records)["Energy"]
    assert tile == f"{_tiles(records[:1])['Energy']} (without 1 runs beside others)"
    for said in (notes(records), comparison_lines(records)):
        assert any(line.startswith("1 of 2 runs with measured energy ran beside another training") for line in said)
    assert "result/kwh" not in figures(records[1].values)
    assert figures(records[1].values)["result/energy_shared"] is True
