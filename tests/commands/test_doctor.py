"""The doctor on this repository as it is, and on set-ups that are broken on purpose."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from PIL import Image

from ssat.commands.doctor import data_sets, fit, machine, promises, trainings
from ssat.commands.doctor.command import doctor, main, parse
from ssat.commands.doctor.finding import CheckFailed, Finding, guarded
from ssat.commands.doctor.machine import Driver, check_disk, check_lock, check_versions, gpu_problem
from ssat.commands.doctor.privacy import replacements, scrub
from ssat.commands.doctor.trainings import Runs, compared, largest_difference
from ssat.core.errors import UserError
from tests.data.official import WRITERS

ROOT = Path(__file__).resolve().parents[2]
NO_TRAINING = {"determinism", "resume", "two ranks", "overfit, CPU", "run, all on", "report"}


def command(*words: str, root: Path = ROOT, tmp: Path | None = None, **more: str) -> subprocess.Popen:
    env = os.environ | ({} if tmp is None else {"TMPDIR": str(tmp)}) | more
    return subprocess.Popen(
        [sys.executable, "-m", "src.doctor", *words],
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def marks(lines: str) -> dict[str, str]:
    """Mark of each check in what the command printed."""
    rows = [line for line in lines.splitlines() if line.startswith(("ok ", "warning ", "failed ", "skipped "))]
    return {row[9:27].strip(): row[:8].strip() for row in rows}


def only(findings) -> Finding:
    (finding,) = findings
    return finding


@pytest.mark.slow
def test_quick_passes_here_and_its_json_names_no_folder_and_no_key(tmp_path):
    key = "0123456789abcdef" * 2 + "01234567"
    process = command("quick=true", "data=digits", "--json", f"runs_dir={tmp_path}/mine", WANDB_API_KEY=key)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    content = json.loads(out)
    assert marks(err) == {check["check"]: check["mark"] for check in content["checks"]}
    assert content["summary"]["failed"] == 0
    assert {name for name, mark in marks(err).items() if mark == "skipped"} >= NO_TRAINING
    for private in (str(tmp_path), str(ROOT), str(Path.home()), key):
        assert private not in out
    assert "<runs_dir> can be written to" in out


def test_a_damaged_data_set_and_a_runs_folder_that_is_a_file_are_found(tmp_path, capsys):
    WRITERS["pmnist"](tmp_path / "data")
    (tmp_path / "runs").write_text("")
    words = ["quick=true", "data=pmnist,svhn", f"data.root={tmp_path / 'data'}", f"runs_dir={tmp_path / 'runs' / 'a'}"]
    threads = torch.get_num_threads()
    assert doctor([*words, f"out={tmp_path / 'findings.json'}"]) == 1
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert {name for name, mark in marks(out).items() if mark == "failed"} == {"data pmnist", "runs folder"}
    assert "expected 4,708 train" in out
    assert "is a file, not a folder -> set runs_dir=" in out
    assert f"not in {tmp_path / 'data'}: python -m src.prepare data=svhn" in out
    checks = json.loads((tmp_path / "findings.json").read_text())["checks"]
    assert {check["check"] for check in checks if check["mark"] == "failed"} == {"data pmnist", "runs folder"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["qick=true"], "there is no option 'qick=true' (did you mean quick?)"),
        (["data=cifar"], "data=cifar does not exist (did you mean cifar1"),
        (["data.root=/proc/nowhere"], "data.root='/proc/nowhere' is not a folder"),
        (["out=/proc/nowhere/a.json"], "out=/proc/nowhere/a.json cannot be written"),
        (["quick=maybe"], "quick=maybe is not one of true, false"),
        (["--json=yes"], "there is no option '--json=yes'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(words, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["doctor", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_the_names_of_data_sets_are_a_list_or_all():
    assert parse(["data=digits,pmnist,digits"]).data == ("digits", "pmnist")
    assert parse(["data=all"]).data == parse([]).data == ()


def project(folder: Path, *, python: str = ">=3.10", needs: str = '"torch>=2.6"', lock: str = "") -> Path:
    (folder / "pyproject.toml").write_text(f'[project]\nrequires-python = "{python}"\ndependencies = [{needs}]\n')
    (folder / "requirements.lock").write_text(lock)
    return folder


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"needs": '"torch>=99"'}, f"torch is {machine.installed('torch')}, needed is >=99"),
        ({"needs": '"no-such-package>=1"'}, "no-such-package is not installed, needed is >=1"),
        ({"python": ">=4"}, "needed is >=4"),
    ],
)
def test_a_version_out_of_range_fails(tmp_path, change, text):
    finding = only(check_versions(project(tmp_path, **change)))
    assert finding.mark == "failed" and text in finding.text and "make setup" in finding.cure


def test_what_another_python_needs_is_not_asked_for(tmp_path):
    needs = '"torch", "no-such-package ; python_version < \'3.0\'"'
    assert only(check_versions(project(tmp_path, needs=needs))).mark == "ok"


def test_an_installed_package_is_checked_by_its_own_metadata(tmp_path):
    assert only(check_versions(tmp_path)).mark == "ok" and only(check_lock(tmp_path)).mark == "skipped"


def test_another_version_than_the_pinned_one_is_a_warning(tmp_path):
    here = machine.installed("numpy")
    same = f"numpy=={here}\nno-such-package==1.0\n"
    finding = only(check_lock(project(tmp_path, lock=same)))
    assert finding.mark == "ok" and finding.text == "1 of 2 packages as pinned, 1 not installed"
    finding = only(check_lock(project(tmp_path, lock="numpy==1.0\n")))
    assert finding.mark == "warning" and f"numpy {here} (pinned: 1.0)" in finding.text


@pytest.mark.parametrize(
    ("driver", "build", "hidden", "mark", "text"),
    [
        (None, "13.0", False, "ok", "training uses the CPU"),
        (Driver("550.1", (12, 4), 2), None, False, "failed", "built without CUDA"),
        (Driver("550.1", (12, 4), 2), "13.0", False, "failed", "built for CUDA 13.0, the driver runs up to 12.4"),
        (Driver("590.1", (13, 1), 2), "13.0", True, "warning", "sees 2 GPU(s), PyTorch none"),
        (Driver("590.1", (13, 1), 2), "13.0", False, "failed", "sees 2 GPU(s), PyTorch none"),
    ],
)
def test_why_pytorch_sees_no_gpu(driver, build, hidden, mark, text):
    finding = gpu_problem(driver, build, hidden)
    assert finding.mark == mark and text in finding.text


def test_looking_at_the_runs_folder_leaves_nothing(tmp_path):
    finding = only(check_disk(tmp_path / "not" / "yet"))
    assert finding.mark in ("ok", "warning") and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc on this system")
def test_a_folder_that_cannot_be_written_to_fails():
    finding = only(check_disk(Path("/proc/runs")))
    assert finding.mark == "failed" and "cannot be written to" in finding.text


def test_a_system_without_shared_memory_is_skipped(tmp_path):
    assert only(machine.check_shared_memory(tmp_path / "shm")).mark == "skipped"


def test_cells_and_visible_patches_are_those_of_table_14():
    known = {("vit_t", "cifar10"): "16x16 cells of 2 px, 64 of 256 kept"}
    known |= {("vit_t", "chaoyang"): "16x16 cells of 32 px, 64 of 256 kept"}
    known |= {("cvt_13", "pmnist"): "7x7 cells of 4 px, 12 of 49 kept", ("resnet_56", "digits"): "no masked pass"}
    # VideoMAE's: 196 tubes, of which 0.75 hide 147, in 8 slots of two frames
    known |= {(f"videomae_{size}", "ffpp"): "8x14x14 cells of 16 px x 2 frames, 392 of 1568 kept" for size in "sb"}
    for (encoder, data), text in known.items():
        assert fit.cells(fit.shallow(fit.composed(f"encoder={encoder}", f"data={data}"))) == text


def test_encoders_of_clips_are_checked_with_clips():
    clips = [name for name in fit.encoders(quick=False) if fit.takes_clips(name)]
    assert clips == ["videomae_b", "videomae_micro", "videomae_s"]
    finding = fit.fit_of("videomae_micro", fit.geometries(fit.VIDEO_SETS))
    assert finding.mark == "ok" and finding.text.startswith("224 px x 16 frames: 8x14x14 cells")
    with pytest.raises(UserError, match="encoder.frames=15 is not a multiple of encoder.tubelet_size=2"):
        fit.cells(fit.composed("encoder=videomae_micro", "data=ffpp", "data.frames=15"))
    assert fit.packed_difference("videomae_micro") <= fit.BOUND


def test_what_does_not_fit_is_refused_or_enlarged():
    with pytest.raises(UserError, match="img_size=30 is not a multiple of patch_size=4"):
        fit.cells(fit.composed("encoder=vit_2m8", "data=digits", "data.img_size=30"))
    finding = fit.fit_of("deit_ti", fit.geometries(["digits"]))
    assert finding.mark == "ok" and finding.text == "digits with input=up224 only"


def test_a_large_set_is_only_located_when_quick(tmp_path):
    WRITERS["cifar10"](tmp_path)
    assert "not read" in only(data_sets.check_data(["cifar10"], tmp_path, quick=True)).text
    finding = only(data_sets.check_data(["cifar10"], tmp_path, quick=False))
    assert finding.mark == "failed" and "expected 50,000 train" in finding.text


def test_a_check_that_crashes_fails_with_its_traceback_and_the_next_goes_on():
    def crash():
        yield Finding("a", "ok", "")
        raise ZeroDivisionError("a bug")

    first, second = guarded("b", crash)
    assert (first.mark, second.check, second.mark) == ("ok", "b", "failed")
    assert second.text == "ZeroDivisionError: a bug" and "in crash" in second.details["traceback"]


def save_weights(run: Path, value: float) -> Path:
    path = trainings.last_checkpoint(run)
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {"w": torch.tensor([1.0, value])}}, path)
    return run


def test_weights_that_differ_fail_and_say_by_how_much(tmp_path):
    one, same, other = (save_weights(tmp_path / name, value) for name, value in (("1", 2.0), ("2", 2.0), ("3", 2.5)))
    assert compared("resume", "x", one, same).text == "x: 1 tensors equal bit for bit"
    finding = compared("resume", "x", one, other)
    assert finding.mark == "failed" and "differ by up to 5.0e-01" in finding.text
    assert compared("two ranks", "x", one, other, 0.5).mark == "ok"
    assert largest_difference({"a": torch.ones(1)}, {"b": torch.ones(1)}) == float("inf")


def test_a_run_that_fails_is_quoted_and_stop_leaves_no_process(tmp_path):
    runs = Runs(tmp_path)
    with pytest.raises(CheckFailed, match=r"ssat train exits with 2: error: there is no key 'epoch' \(did you mean"):
        runs.train("wrong", "epoch=1")
    runs.stop()
    assert not [process for process in psutil.Process().children() if "ssat.commands" in process.cmdline()]
    with pytest.raises(CheckFailed, match="stopped"):
        runs.train("late")


def test_texts_for_bug_reports_lose_folders_names_and_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hunter2hunter2")
    pairs = replacements({"<data.root>": tmp_path / "sets", ".": ROOT})
    value = {"a": [f"{tmp_path}/sets/cifar and {ROOT}/src", "hunter2hunter2", 3], "b": "/home/alice/x /Users/bob"}
    assert scrub(value, pairs) == {"a": ["<data.root>/cifar and ./src", "<MY_TOKEN>", 3], "b": "~/x ~"}


@pytest.mark.slow
def test_everything_passes_here_and_leaves_nothing(tmp_path):
    process = command("data=digits", "--json", f"runs_dir={tmp_path / 'runs'}", tmp=tmp_path)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    checks = {check["check"]: check for check in json.loads(out)["checks"]}
    assert {name for name in NO_TRAINING if checks[name]["mark"] != "ok"} == set()
    assert checks["determinism"]["details"]["difference"] == checks["resume"]["details"]["difference"] == 0
    assert not list(tmp_path.glob("ssat-doctor-*"))


@pytest.mark.slow
def test_masks_that_are_no_function_of_the_seed_are_found(tmp_path):
    for folder in ("src", "conf", "experiments", "hydra_plugins"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    noise = tmp_path / "src" / "ssat" / "core" / "noise.py"
    line = "    golden = _int64(0x9E3779B97F4A7C15)\n"
    assert noise.read_text().count(line) == 1
    chance = "    stream = int.from_bytes(__import__('os').urandom(4), 'little')\n"
    noise.write_text(noise.read_text().replace(line, line + chance))
    process = command("data=digits", root=tmp_path, PYTHONPATH=str(tmp_path / "src"))
    out, err = process.communicate(timeout=900)
    assert process.returncode == 1, err
    failed = {name for name, mark in marks(out).items() if mark == "failed"}
    assert failed == {"determinism", "resume", "two ranks"}


@pytest.mark.slow
def test_ctrl_c_ends_its_runs_and_removes_their_folder(tmp_path):
    process = command("data=digits", tmp=tmp_path)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("ssat-doctor-*/runs/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130 and "interrupted: nothing is left behind" in err
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert not list(tmp_path.glob("ssat-doctor-*"))


def test_a_file_with_code_that_is_read_or_run_is_found(tmp_path, monkeypatch):
    class Whole:
        folder = tmp_path
        whole = SimpleNamespace(result=lambda: tmp_path)

    (tmp_path / "config.yaml").write_text("seed: 0\n")

    def read(path):
        return torch.load(path, weights_only=False)

    def refuse(*_):
        raise UserError("not read")

    monkeypatch.setattr(promises, "saved_configuration", refuse)
    monkeypatch.setattr(promises, "load_checkpoint", read)
    with pytest.raises(CheckFailed, match="a pickled call has run its code"):
        promises.code_in_files(Whole())
    shutil.rmtree(tmp_path / "strangers")
    monkeypatch.setattr(promises, "load_checkpoint", lambda path: {})
    with pytest.raises(CheckFailed, match="a pickled call was read without a word"):
        promises.code_in_files(Whole())
    shutil.rmtree(tmp_path / "strangers")
    monkeypatch.setattr(promises, "load_checkpoint", refuse)
    assert promises.code_in_files(Whole()).mark == "ok"


def test_the_image_bomb_is_small_and_claims_gigabytes():
    assert len(promises.bomb()) < 1000
    with warnings.catch_warnings(), pytest.raises(Image.DecompressionBombError, match="4290250000 pixels"):
        Image.open(io.BytesIO(promises.bomb()))


def test_promises_and_quick_exclude_each_other():
    assert parse(["promises=true"]).promises and not parse([]).promises
    with pytest.raises(UserError, match="leave one of them out"):
        parse(["promises=true", "quick=true"])


@pytest.mark.slow
def test_the_promises_hold_here_and_nothing_is_left(tmp_path):
    process = command("promises=true", "--json", tmp=tmp_path)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert {check["check"]: check["mark"] for check in json.loads(out)["checks"]} == dict.fromkeys(
        promises.CHECKS, "ok"
    )
    assert not list(tmp_path.glob("ssat-doctor-*"))
