"""No room, a limit of the file size, a folder that cannot be written: one sentence, and later the same result."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssat.config.command_line import disk_space
from ssat.core.errors import UserError
from ssat.core.interrupts import AGAIN, LEFT
from tests.helpers import ROOT, TINY, command, fail_of, largest_difference, record_of, train, weights

WORDS = ["mode=ssat", "epochs=2", "ssl.decoder_dim=32", "ssl.decoder_heads=2", "monitor.pictures=true"]
SIZE = 6 * 2**20

FILL = """\
import lightning.pytorch as pl
from pathlib import Path


class Fill(pl.Callback):
    '''Leaves `free` bytes on the disk of a file when the training has ended.'''

    def __init__(self, file: str, size: int, free: int) -> None:
        self.file, self.size, self.free = Path(file), size, free

    def on_train_end(self, trainer, pl_module):
        import shutil

        if not self.file.with_name('done').exists():
            self.file.with_name('done').touch()
            self.file.write_bytes(b'x' * (shutil.disk_usage(self.file.parent).free - self.free))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*WORDS, runs=tmp_path_factory.mktemp("whole"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def limit() -> Iterator[object]:
    """Sets the size that a file of this process may have; 0 bytes too."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    yield lambda size=hard: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def continues_as(run: Path, whole: Path, *words: str) -> None:
    train(*WORDS, *words, f"run_dir={run}", runs=run.parent)
    assert largest_difference(weights(run), weights(whole)) == 0
    assert record_of(run)["metrics"] == record_of(whole)["metrics"]
    assert not [path for path in run.rglob("*") if "partial" in path.name or "pending" in path.name]


@pytest.mark.sampled
@pytest.mark.parametrize("free", [0, 5_000, 30_000, 600_000, 1_300_000, 1_800_000])
def test_a_disk_that_is_full_at_any_write_stops_the_run_until_there_is_room(disk: Path, whole: Path, free: int) -> None:
    filler, run = disk / "filler", disk / "run"
    filler.write_bytes(b"x" * (SIZE - free))
    with pytest.raises(UserError, match="no space left on the disk") as refused:
        train(*WORDS, f"run_dir={run}", runs=disk)
    kept = bool([*run.glob("*/checkpoints/last.ckpt")])
    assert str(refused.value).endswith(LEFT if kept else AGAIN)  # nothing is promised that there is not
    filler.unlink()
    continues_as(run, whole)


@pytest.mark.parametrize("free", [0, pytest.param(50_000, marks=pytest.mark.slow)])
def test_a_disk_that_is_full_after_the_training_keeps_the_training(
    disk: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    """Then records, predictions and pictures are written; removing earlier checkpoints would make room for them."""
    (tmp_path / "fill_callback.py").write_text(FILL)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = f"{{file: {disk}/filler, size: {SIZE}, free: {free}}}"
    fill = f"callbacks=[{{kind: 'fill_callback:Fill', {options[1:-1]}}}]"
    with pytest.raises(UserError, match=rf"no space left on the disk.*, then {LEFT}$"):
        train(*WORDS, fill, "checkpoint_keep=1", f"run_dir={disk / 'run'}", runs=disk)
    (disk / "filler").unlink()
    continues_as(disk / "run", whole, fill)


@pytest.mark.sampled
@pytest.mark.parametrize("size", [600, 9_000, 100_000, 300_000])
def test_a_limit_of_the_file_size_is_a_sentence(tmp_path: Path, whole: Path, limit: object, size: int) -> None:
    run = tmp_path / "run"
    limit(size)  # type: ignore[operator]
    try:
        with pytest.raises(UserError, match=r"files may not grow that large here writing \S+run/\S+: raise the limit"):
            train(*WORDS, f"run_dir={run}", runs=tmp_path)
    finally:
        limit()  # type: ignore[operator]
    continues_as(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_what_a_logger_cannot_write_is_no_traceback(tmp_path: Path, logger: str) -> None:
    words = " ".join(f"'{word}'" for word in [*TINY, *WORDS, f"runs_dir={tmp_path}", f"logger={logger}"])
    result = subprocess.run(
        ["bash", "-c", f"ulimit -f 20; exec {sys.executable} -m src.train {words}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"WANDB_MODE": "offline"},
    )
    assert "raise the limit (ulimit -f)" in fail_of(result)
    again = command(*WORDS, f"logger={logger}", runs=tmp_path)
    assert again.returncode == 0, again.stderr


def test_a_used_up_quota_is_a_sentence() -> None:
    with pytest.raises(UserError, match="your quota of the disk is used up writing /x: free some of it"), disk_space():
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "/x")


def test_other_faults_of_the_disk_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="Input/output error"), disk_space():
        raise OSError(errno.EIO, "Input/output error", "/x")


@pytest.mark.parametrize("key", ["runs_dir", "run_dir"])
def test_a_read_only_place_is_refused_before_the_training(disk: Path, capsys: pytest.CaptureFixture, key: str) -> None:
    (disk / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    place = f"{key}={disk / 'run'}"
    with pytest.raises(UserError, match=rf"{place} cannot be written \(Read-only file system\): name another"):
        train(*WORDS, place, runs=disk)
    assert "run folder" not in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's rights")
def test_a_begun_run_that_has_become_read_only_is_refused_before_it_goes_on(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its files are still this user's: the lock can be touched, and nothing can be added."""
    run = tmp_path / "run"
    (run / "joint").mkdir(parents=True)
    for name in ("config.yaml", "inputs.json", ".lock"):
        (run / name).write_bytes((whole / name).read_bytes())
        os.chown(run / name, 65534, 65534)
    os.chown(run, 65534, 65534)
    run.chmod(0o555)
    os.chmod(tmp_path, 0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(UserError, match=r"run_dir=\S+ cannot be (written|read) \(Permission denied\)"):
            train(*WORDS, f"run_dir={run}", runs=tmp_path)
    finally:
        os.seteuid(0)
    assert "run folder" not in capsys.readouterr().out
