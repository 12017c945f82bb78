"""Every file of conf/encoder: it builds, learns jointly with its default task, and has the promised parameters."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.batch import Batch
from ssat.core.errors import UserError
from ssat.runs.footprint import count_parameters
from ssat.training.build import build_encoder, build_module
from ssat.training.tasks import build_ssl
from tests.helpers import ROOT, largest_difference, only_run, record_of, wait_for, weights

NAMES = sorted(path.stem for path in (CONF / "encoder").glob("*.yaml"))
MODEL = {"timm": ["encoder.name=vit_tiny_patch16_224", "encoder.patch_size=4"], "deit_ti": ["encoder.patch_size=8"]}
# The tubelets of clips have 16 pixels per side whatever the images' size, and digits are grey.
MODEL |= dict.fromkeys(("videomae_s", "videomae_b", "videomae_micro"), ["encoder.frames=4", "data.channels=3"])


def composed(name: str, *overrides: str) -> Run:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = [f"encoder={name}", "data=digits", "data.img_size=32", *MODEL.get(name, []), *overrides]
        return resolve(compose("train", overrides=values))


LARGE = ("vit_s", "vit_b", "videomae_s", "videomae_b")  # the same code as vit_t and videomae_micro


@pytest.mark.sampled
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in NAMES])
def test_an_encoder_takes_a_joint_step_with_its_default_task(name: str) -> None:
    config = composed(name)
    (phase,) = config.mode.phases
    if name.startswith("resnet"):
        with pytest.raises(UserError, match="mode=scratch"):
            build_module(config, phase, 10)
        return
    torch.manual_seed(0)
    encoder = build_encoder(config, phase)
    task = build_ssl(config, phase, encoder)
    images = torch.randn(2, encoder.in_chans, *encoder.img_size)
    assert encoder.img_size[-2:] == (32, 32)
    out = task(encoder.train(), Batch(images), True)
    assert out.features.shape == (2, encoder.num_features)
    assert 0.5 < out.loss.item() < 8  # images of unit variance, predictions of about that
    out.loss.backward()


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "overrides", "inference", "decoder"),
    [
        ("cvt_13", [], 19_616_330, 287_152),
        ("cvt_13", ["ssl=paper_literal"], 19_616_330, 485_424),
        ("cvt_13", ["ssl=convmae_literal"], 19_616_330, 1_141_296),
        ("cvt_13", ["input=up224"], 19_616_330, 380_032),
        ("swin_t", [], 27_505_108, 590_592),
        ("swin_t", ["ssl=swin_light"], 27_505_108, 303_152),
        ("swin_t", ["data=cifar10", "input=up224"], 27_527_044, 2_362_368),
        ("sl_vit", [], 2_729_878, None),
        ("cct_7", [], 3_760_139, None),  # the authors' network counted
        ("cct_2", [], 283_723, None),
        ("cct_7", ["data=cifar10", "input=up224"], 4_550_091, None),
        ("deit_ti", ["data=cifar100", "input=up224"], 5_526_346, None),
        ("videomae_s", ["data=cifar10", "input=up224", "data.frames=16"], 21_879_936 + 3_850, 2_149_440),
    ],
)
def test_parameters_of_the_configured_encoders(name: str, overrides: list, inference: int, decoder: int | None) -> None:
    config = composed(name, "data.channels=3", *overrides)
    if "input=up224" in overrides:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = resolve(compose("train", overrides=[f"encoder={name}", "data=cifar10", *overrides]))
    (phase,) = config.mode.phases
    with torch.device("meta"):  # numbers of parameters need no values
        module = build_module(config, phase, 10)
    counted = count_parameters(module.encoder, module.head, module.ssl)
    assert counted["inference"] == inference
    if decoder is not None:
        assert sum(p.numel() for p in module.ssl.parameters() if p.requires_grad) == decoder


def test_parameters_that_a_phase_does_not_read_are_frozen_in_it() -> None:
    for name, mode, frozen in (
        ("swin_t", "scratch", {"mask_token"}),
        ("swin_t", "ssat", set()),
        ("cvt_13", "ssat", set()),
        ("cvt_13", "ssl_ft", {"norm.weight", "norm.bias"}),
        ("videomae_micro", "scratch", {"norm.weight", "norm.bias"}),
        ("videomae_micro", "ssat", set()),
        ("videomae_micro", "ssl_ft", {"fc_norm.weight", "fc_norm.bias"}),
    ):
        small = {"swin_t": ["encoder.depths=[1,1,1,1]"], "cvt_13": ["encoder.depths=[1,1,1]"]}
        small["videomae_micro"] = ["data.frames=16"]
        config = composed(name, f"mode={mode}", *small.get(name, []))
        module = build_module(config, config.mode.phases[0], 10)
        assert {n for n, p in module.encoder.named_parameters() if not p.requires_grad} == frozen


def test_the_task_of_clips_gets_the_statistics_that_normalise_the_data() -> None:
    def task_of(*overrides: str):
        config = composed("videomae_micro", *overrides)
        (phase,) = config.mode.phases
        return build_ssl(config, phase, build_encoder(config, phase))

    assert task_of().mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    own = "data.statistics.own={mean:[0.1,0.2,0.3],std:[0.4,0.5,0.6]}"
    assert task_of("recipe.statistics=own", own).std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert task_of("ssl.mean=[0.5,0.5,0.5]").mean.flatten().tolist() == [0.5] * 3
    with pytest.raises(
        UserError, match=r"^ssl=videomae needs the mean and std .* give data\.statistics\.own="
    ) as caught:
        task_of("recipe.statistics=own", "data.statistics.own=null")
    assert caught.value.key == "recipe.statistics"


def test_the_decoder_of_clips_is_half_as_wide_as_the_encoder_unless_it_is_given() -> None:
    def decoder_of(*overrides: str):
        config = composed("videomae_micro", *overrides)
        (phase,) = config.mode.phases
        return build_ssl(config, phase, build_encoder(config, phase)).decoder

    assert (decoder_of().embed.out_features, len(decoder_of().blocks)) == (32, 4)
    light = decoder_of("ssl.decoder_dim=128", "ssl.decoder_depth=2", "ssl.decoder_heads=16")
    assert (light.embed.out_features, len(light.blocks), light.blocks[0].attn.num_heads) == (128, 2, 16)


TINY = {
    "cvt_13": ["encoder.dims=[8,16,24]", "encoder.depths=[1,1,1]", "encoder.num_heads=[1,2,3]", "ssl.decoder_dim=32"],
    "swin_t": ["encoder.embed_dim=12", "encoder.depths=[1,1,1,1]", "encoder.num_heads=[1,2,2,4]"],
    "resnet_50": ["encoder.depths=[1,1,1,1]"],
    "sl_vit": ["encoder.depth=2", "encoder.embed_dim=24", "encoder.num_heads=2", "ssl.decoder_dim=32"],
}


def arguments(name: str, *overrides: str, runs: Path) -> list[str]:
    """The command of a tiny run of `name`."""
    settings = [f"encoder={name}", *TINY[name], "data=digits", "data.img_size=16", "data.samples_per_class=8"]
    settings += ["recipe.batch_size=16", "epochs=1", "footprint.energy=false", "trainer=cpu", "trainer.threads=1"]
    return [sys.executable, "-m", "src.train", *settings, f"runs_dir={runs}", *overrides]


def command(name: str, *overrides: str, runs: Path) -> subprocess.CompletedProcess:
    return subprocess.run(arguments(name, *overrides, runs=runs), cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cvt_13", "swin_t"])
def test_two_processes_train_every_phase(name: str, tmp_path: Path) -> None:
    # DDP stops at the second step of a phase that leaves a trainable parameter without a gradient.
    done = command(name, "mode=ssl_ft", "trainer=ddp_cpu", "recipe.batch_size=8", runs=tmp_path)
    assert done.returncode == 0, done.stderr
    record = record_of(only_run(tmp_path))
    assert [phase["steps"] for phase in record["phases"]] == [5, 5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode"), [("cvt_13", "ssat"), ("swin_t", "ssat"), ("sl_vit", "ssat"), ("resnet_50", "scratch")]
)
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(name: str, mode: str, tmp_path: Path) -> None:
    settings = [f"mode={mode}", "epochs=4", "recipe.drop_path=0.1", "checkpoint_minutes=0.002"]
    process = subprocess.Popen(arguments(name, *settings, runs=tmp_path / "killed"), cwd=ROOT, stdout=subprocess.PIPE)
    wait_for(lambda: list((tmp_path / "killed").glob("*/*/*/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list((tmp_path / "killed").glob("*/*/result.json")), "it was killed too late to show anything"
    phase = "joint" if mode == "ssat" else "scratch"
    ends = []
    for runs in (tmp_path / "killed", tmp_path / "whole"):
        assert command(name, *settings, runs=runs).returncode == 0
        ends.append(weights(only_run(runs), phase))
    assert largest_difference(*ends) == 0


@pytest.mark.slow
def test_a_finished_run_is_skipped_and_evaluated_to_the_same_accuracy(tmp_path: Path) -> None:
    assert command("resnet_50", "mode=scratch", runs=tmp_path).returncode == 0
    run = only_run(tmp_path)
    again = command("resnet_50", "mode=scratch", runs=tmp_path)
    assert again.returncode == 0 and "finished" in again.stdout
    evaluated = subprocess.run(
        [sys.executable, "-m", "src.evaluate", f"run={run}"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"{record_of(run)['metrics']['test']['acc1']['last']:.2f}" in evaluated.stdout


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "overrides", "sentence"),
    [
        ("vit_t", ["ssl=simmim"], "use ssl=mae"),
        (
            "vit_t",
            ["ssl=videomae"],
            "takes images: use encoder=videomae_s or videomae_b, or another task, such as ssl=mae",
        ),
        ("videomae_micro", ["ssl=mae"], "ssl=mae reads images, and VideoTransformer takes clips: use ssl=videomae"),
        ("videomae_micro", ["encoder.frames=15"], "encoder.frames=15 is not a multiple of encoder.tubelet_size=2"),
        ("resnet_50", ["mode=ssat"], "ResNet has no masked pass"),
        ("cvt_13", ["ssl=mae"], "use ssl=convmae"),
        ("swin_t", ["ssl=convmae"], "use ssl=simmim or ssl=swin_light"),
        ("swin_t", ["ssl.loss=huber"], "ssl.loss='huber' is not possible: it must be one of mse, l1"),
        ("swin_t", ["encoder.window_size=3"], "encoder.window_size=3 does not divide"),
        ("cvt_13", ["ssl.fuse=sum"], "ssl.fuse='sum' is not possible: it must be one of pool, conv, convmae, last"),
        ("cvt_13", ["data.img_size=4"], "mask grid of one cell"),
    ],
)
def test_what_an_encoder_cannot_do_is_refused(name: str, overrides: list, sentence: str) -> None:
    config = composed(name, *overrides)
    with pytest.raises(UserError) as error:
        build_module(config, config.mode.phases[0], 10)
    assert sentence in str(error.value) and "\n" not in str(error.value)
