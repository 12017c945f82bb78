"""Runs that share a device: how many, on which GPU, under which service; real processes, and MPS as a script."""

import os
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ssat.config.fields import parse
from ssat.config.schema import Launcher
from ssat.config.words import CONF
from ssat.core.errors import NotEnoughMemory, UserError, enough_memory
from ssat.sweeps import packed
from ssat.sweeps.here import Placement, run_here, share
from ssat.sweeps.jobs import JobOutcome
from tests.sweeps.test_launchers import ON_CPU, job, launcher_of
from tests.sweeps.test_sweep import finished_in, sweep

CONTROL = """#!/bin/bash
# Behaves as nvidia-cuda-mps-control does at its command line: -d starts a daemon, orders come on standard input.
if [ "$1" = -d ]; then
  [ -z "$BROKEN" ] || { echo "no permission"; exit 1; }
  echo "start ${CUDA_VISIBLE_DEVICES-all}" >> "$MPS_SAID"; touch "$CUDA_MPS_PIPE_DIRECTORY/control"; exit 0
fi
read -r order
[ -e "${CUDA_MPS_PIPE_DIRECTORY:-/nowhere}/control" ] || { echo "Cannot find MPS control daemon process"; exit 1; }
echo "$order" >> "$MPS_SAID"; [ "$order" = quit ] && rm "$CUDA_MPS_PIPE_DIRECTORY/control"; exit 0
"""


@pytest.fixture
def control(tmp_path, monkeypatch) -> Path:
    """The service's command on the PATH; returns the file of the orders that it got."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / packed.CONTROL
    script.write_text(CONTROL)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MPS_SAID", str(tmp_path / "said"))
    return tmp_path / "said"


def packing(folder: Path, **more) -> packed.Packing:
    folder.mkdir()
    return packed.Packing(2, 1, ("0",), {}, **{"per_device": 2, "lines": ("packed: 2 runs",), **more})


@pytest.mark.parametrize(
    ("words", "devices", "gpus", "at_once", "most"),
    [
        ([], 1, "01", 4, 2),
        (["launcher.per_device=3"], 1, "0123", 12, 3),
        (["launcher.per_device=2"], 2, "0123", 4, 2),
        (["launcher.per_device=1"], 4, "01", 1, 1),
    ],
)
def test_no_gpu_gets_more_runs_than_were_asked_for(words, devices, gpus, at_once, most):
    launcher, jobs = launcher_of("launcher=packed", *words), [job(devices=devices)] * 20
    assert packed.on_gpus(launcher, jobs, gpus) == at_once
    given = [share(slot, jobs[0], gpus)["CUDA_VISIBLE_DEVICES"].split(",") for slot in range(at_once)]
    assert {gpu: sum(gpu in names for names in given) for gpu in gpus} == dict.fromkeys(gpus, most)


@pytest.mark.parametrize(
    ("words", "trainer", "cores", "at_once"),
    [
        ([], {}, 8, 8),
        ([], {"threads": 4}, 8, 2),
        (["launcher.threads=2"], {}, 8, 4),
        ([], {"threads": 2, "devices": 2}, 8, 2),
        ([], {"threads": 4}, 2, 1),
        (["launcher.per_device=3"], {"threads": 4}, 2, 3),
    ],
)
def test_on_a_cpu_runs_are_packed_by_cores(words, trainer, cores, at_once):
    jobs = [job(accelerator="cpu", **trainer)]
    assert packed.on_cores(launcher_of("launcher=packed", *words), jobs, cores) == at_once


def test_more_runs_than_the_memory_can_hold_are_refused_with_the_number_that_fits():
    jobs = [job(**ON_CPU)] * 100_000
    with pytest.raises(UserError, match=r"^launcher.per_device: 100,000 runs at once need .* at most \d+ fit$"):
        packed.pack(launcher_of("launcher=packed", "launcher.per_device=100000"), jobs)


def test_an_absent_gpu_is_refused_before_the_first_run(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=r"^launcher=packed with trainer.accelerator=gpu, but PyTorch sees no GPU"):
        packed.pack(launcher_of("launcher=packed"), [job(accelerator="gpu")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99999")
    with pytest.raises(UserError, match=r"^CUDA_VISIBLE_DEVICES=99999 names GPU 99999, which is not on this machine"):
        packed.pack(launcher_of("launcher=packed"), [job()])


def test_mps_is_started_for_all_gpus_and_ends_with_the_sweep(tmp_path, control, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with packed.sharing(packing(tmp_path / "sweep"), tmp_path / "sweep") as shared:
        place = Path(shared.env["CUDA_MPS_PIPE_DIRECTORY"])
        assert (place / "control").exists()
    assert not place.exists()
    assert control.read_text().splitlines() == ["start all", "quit"]
    said = "packed: 2 runs\nMPS: started, and ended with the sweep\n"
    assert (tmp_path / "sweep" / "packed.txt").read_text() == said == capsys.readouterr().out


def test_a_service_that_runs_already_is_used_and_left_running(tmp_path, control, monkeypatch):
    (tmp_path / "control").touch()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    with packed.sharing(packing(tmp_path / "sweep"), tmp_path / "sweep") as shared:
        assert shared.lines[-1] == "MPS: the service that already runs on this machine"
    assert control.read_text().splitlines() == ["get_server_list"]


def test_without_mps_the_runs_go_on_and_one_line_says_why(tmp_path, control, monkeypatch):
    monkeypatch.setenv("BROKEN", "1")
    with packed.sharing(packing(tmp_path / "one"), tmp_path / "one") as shared:
        assert not shared.env
    monkeypatch.setenv("PATH", "")
    with packed.sharing(packing(tmp_path / "two"), tmp_path / "two") as none:
        assert not none.env
    assert shared.lines[-1].startswith("MPS: not used, nvidia-cuda-mps-control -d failed (no permission)")
    assert none.lines[-1].startswith("MPS: not used, nvidia-cuda-mps-control is not installed here")
    with packed.sharing(packing(tmp_path / "three", per_device=1), tmp_path / "three") as alone:
        assert alone.lines == ("packed: 2 runs",)  # nothing is shared


def test_a_job_gets_the_variables_of_its_placement(tmp_path):
    placement = Placement(1, 1, env={"PYTHONVERBOSE": "1"})
    [(_, outcome)] = run_here([job("encoder=vit_x", **ON_CPU)], launcher_of("launcher=packed"), tmp_path, placement)
    assert outcome.status == "refused"
    assert "import 'site'" in (tmp_path / "000-run.log").read_text()


def test_a_run_without_memory_is_told_to_share_less():
    shared = packed.Packing(4, 1, per_device=4)
    with pytest.raises(NotEnoughMemory) as refusal, enough_memory("the run"):
        raise MemoryError
    outcome = packed.advised(JobOutcome("crashed", "torch.OutOfMemoryError: CUDA out of memory", "trace"), shared)
    assert outcome.reason.endswith("; 4 runs shared the device: launcher.per_device=2 gives each more memory")
    refused = str(refusal.value)
    assert "; 4 runs shared the device" in packed.advised(JobOutcome("refused", refused), shared).reason
    assert packed.advised(JobOutcome("crashed", "ValueError: x"), shared).reason == "ValueError: x"


def test_throughput_is_runs_an_hour_and_all_images_over_the_time_of_the_sweep():
    row = {"throughput/images_per_s": 100.0, "train_seconds": 30.0}
    record = {"phases": [{"history": [row, row]}, {"history": [row]}]}
    line = packed.throughput([record, record], 60)
    assert line == "throughput: 2 runs in 1m00s: 120 runs/h, 300 images/s of all runs together"


def test_the_quickstart_gives_each_run_a_core_of_its_own(monkeypatch):
    """So small a step hardly gains from a second thread; where there is one core, the runs follow one another."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["+experiments=quickstart", "trainer=cpu"], return_hydra_config=True)
    launcher = parse(Launcher, OmegaConf.to_container(cfg.launcher, resolve=True), "launcher")
    assert launcher.name == "packed"
    assert cfg.hydra.sweeper.params.mode.split(",") == ["ssat", "ssl_ft", "scratch"]
    for cores, at_once in ((1, 1), (2, 2), (8, 3)):
        monkeypatch.setattr(packed, "cores", lambda found=cores: found)
        packing = packed.pack(launcher, [job(accelerator="cpu")] * 3)
        assert (packing.at_once, packing.threads) == (at_once, max(1, cores // at_once))


@pytest.mark.slow
def test_a_packed_sweep_trains_its_runs_and_says_how_fast(tmp_path):
    words = ["launcher=packed", "launcher.per_device=2", "seed=0,1,2", "experiment=packed"]
    result = sweep(*words, runs=tmp_path)
    assert "packed: 2 runs at once" in result.stdout, result.stderr
    assert "sweep: 3 finished, 0 skipped (already finished), 0 failed" in result.stdout
    assert result.stdout.count("started: vit_micro-digits-ssat-s") == 3
    assert len(re.findall(r"\] finished: vit_micro-digits-ssat-s\d: test/acc1 last [\d.]+ %", result.stdout)) == 3
    assert len(finished_in(tmp_path / "packed")) == 3
    (file,) = tmp_path.glob(".sweeps/*/packed.txt")
    assert file.read_text().splitlines()[-1].startswith("throughput: 3 runs in ")
    assert file.read_text().splitlines()[-1] in result.stdout
