"""What W&B records of a run, and that nothing W&B does can stop or hold up a training. No account, no network."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import wandb
from hydra import compose, initialize_config_dir

from ssat.config.resolve import resolve
from ssat.config.words import CONF
from ssat.runs.record import write_record
from ssat.tracking.final import final_figures
from ssat.tracking.logger import WandbLogger
from ssat.tracking.service import end_service
from ssat.tracking.start import run_id
from tests.helpers import TINY, record_of, train
from tests.tracking.wandb_files import KEY, Service, read_recording, recordings

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "http://127.0.0.1:9"  # a port where nobody listens
ROWS = 1000
HANGS = 15  # seconds that only a call which waits for a dead service takes; no measure of speed


def losses(rows: list[dict]) -> list[dict]:
    return [row for row in rows if "train/loss" in row]


def environment(**more: str) -> dict[str, str]:
    """Ours without the tests' offline mode and without any account of the person who runs them."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return kept | {"WANDB_ERROR_REPORTING": "false", "NETRC": "/nonexistent", "PYTHONPATH": str(ROOT)} | more


def command(runs: Path, *words: str, sweep: bool = False, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "src.train", *["-m"] * sweep, *TINY, f"runs_dir={runs}", "logger=wandb", *words],
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=200,
    )


def upload(*words: str, service: Service) -> None:
    """The command that the user is told, against the stand-in."""
    env = environment(WANDB_BASE_URL=service.url, WANDB_API_KEY=KEY)
    subprocess.run([sys.executable, "-m", *words], env=env, check=True, capture_output=True, timeout=60)


def strike(number: signal.Signals) -> None:
    """Send a signal to W&B's own process."""
    for child in psutil.Process().children():
        if child.name().startswith("wandb-core"):
            child.send_signal(number)


@dataclass
class Drive:
    """What a logger without a training took, in seconds, and the lines it printed on stderr."""

    opened: float
    slowest: float
    closed: float
    lines: list[str]


@pytest.fixture
def drive(tmp_path, monkeypatch, capfd) -> Iterator[Callable[..., Drive]]:
    """Rows, a picture and the end of a run under the given environment; `middle` happens after the first rows."""
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "1")  # seconds between two uploads of rows, not 15

    def run(*, middle: Callable[[], None] = lambda: None, **env: str) -> Drive:
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        with suppress(ConnectionError):
            wandb.teardown()  # W&B reads the environment once per session
        words = ["logger=wandb", "data=digits", "encoder=vit_micro", "logger.init_timeout=3", "logger.finish_timeout=2"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = resolve(compose("train", overrides=words))
        folder = tmp_path / "run" / "joint"
        capfd.readouterr()
        start = time.perf_counter()
        logger = WandbLogger(config, config.mode.phases[0], folder, "abcd1234-joint")
        opened, waits = time.perf_counter() - start, []
        for step in range(ROWS):
            before = time.perf_counter()
            logger.log_metrics({"train/loss": 1 / (step + 1), "epoch": 0}, step)
            waits.append(time.perf_counter() - before)
            if step == 20:
                middle()
        logger.log_image("reconstructions", [np.zeros((4, 4, 3), np.uint8)], ROWS)
        write_record(folder, {"name": "joint", "seconds": 3.0, "metrics": {}}, name="phase.json")
        before = time.perf_counter()
        logger.log_final(final_figures(folder.parent, folder))
        return Drive(opened, max(waits), time.perf_counter() - before, capfd.readouterr().err.splitlines())

    yield run
    end_service()  # a teardown would wait for the uploads that the service does not take


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """SSL+FT recorded offline in this process."""
    patch = pytest.MonkeyPatch()
    patch.setenv("WANDB_MODE", "offline")
    words = ("mode=ssl_ft", "logger=wandb", "logger.tags=[mine]", "experiment=table10", "epochs=2")
    run = train(*words, runs=tmp_path_factory.mktemp("runs"))
    patch.undo()
    return run


def test_each_phase_is_a_run_in_its_experiments_group(recorded):
    found = recordings(recorded)
    assert found.keys() == {"pretrain", "finetune"}
    for phase, one in found.items():
        assert one.run.project == "ssat" and one.run.run_group == "table10"
        assert one.run.run_id == (recorded / phase / "wandb_id").read_text().strip()
        assert {"vit_micro", "digits", "ssl_ft", "mae", "mine"} <= set(one.run.tags)
        assert one.exit_code == 0
    assert "result" in found["finetune"].run.tags and "result" not in found["pretrain"].run.tags
    assert found["pretrain"].run.notes == "pretrain of ssl_ft: vit_micro on digits, 2 epochs, lambda 0.0, seed 0"


def test_the_whole_configuration_and_its_filled_in_defaults_are_recorded(recorded):
    config = recordings(recorded)["pretrain"].config
    for key, value in record_of(recorded)["config"].items():
        assert config[key] == value
    assert (config["lam"], config["decoder_depth"], config["decoder_dim"], config["decoder_heads"]) == (0.0, 2, 128, 16)


def test_the_summary_holds_the_records_figures(recorded):
    record, summary = record_of(recorded), recordings(recorded)["finetune"].summary
    assert summary["result/acc1"] == record["metrics"]["test"]["acc1"]["last"]
    assert summary["result/acc1_best"] == record["metrics"]["test"]["acc1"]["best"]
    assert summary["result/seconds"] == pytest.approx(record["seconds"])  # of both phases
    assert summary["result/params_inference"] == record["params"]["inference"]
    assert summary["result/macs_inference"] == record["macs"]["full"]
    assert summary["result/data_sha256"] == record["data_fingerprint"]["sha256"]["train"]
    assert summary["result/faithful"] is False
    assert "vit_micro is not one of the paper's encoders" in summary["result/unfaithful_reasons"]


def test_metrics_have_epochs_as_their_axis_and_keep_their_extremes(recorded):
    metrics = recordings(recorded)["finetune"].metrics
    assert metrics["test/acc1"].step_metric == "epoch" and metrics["test/acc1"].summary.max
    assert metrics["test/loss"].step_metric == "epoch" and metrics["test/loss"].summary.min
    assert metrics["train/*"].step_metric == "trainer/global_step"


def test_every_epochs_values_equal_the_records(recorded):
    (phase,) = [phase for phase in record_of(recorded)["phases"] if phase["name"] == "finetune"]
    rows = recordings(recorded)["finetune"].history
    for name in ("test/acc1", "epoch/train/loss"):
        logged = {row["epoch"]: row[name] for row in rows if name in row}
        kept = {row["epoch"]: row[name.removeprefix("epoch/")] for row in phase["history"]}
        assert logged == pytest.approx(kept)


def test_pictures_and_the_table_of_the_record_are_recorded(recorded):
    rows = recordings(recorded)["pretrain"].history
    pictures = [row for row in rows if row.get("reconstructions/_type") == "images/separated"]
    assert [row["epoch"] for row in pictures] == [0, 1]
    (name,) = pictures[-1]["reconstructions/filenames"]
    (file,) = recorded.glob(f"wandb/offline-run-*-pretrain/files/{name}")
    assert file.read_bytes().startswith(b"\x89PNG")
    (table,) = recorded.glob("wandb/offline-run-*-finetune/files/media/html/record_*.html")
    accuracy = record_of(recorded)["metrics"]["test"]["acc1"]["last"]
    assert f"<tr><td>acc1</td><td>{accuracy}</td></tr>" in table.read_text()


def test_runs_of_one_process_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    runs = [train("mode=scratch", "epochs=1", "logger=wandb", f"seed={seed}", runs=tmp_path) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        (one,) = recordings(run).values()
        assert one.config["seed"] == seed and one.exit_code == 0
        assert one.summary["result/acc1"] == record_of(run)["metrics"]["test"]["acc1"]["last"]


def test_an_id_belongs_to_one_training_and_stays_with_it(tmp_path):
    first, other = tmp_path / "a" / "run" / "joint", tmp_path / "b" / "run" / "joint"
    known = run_id(first, "abcd1234")
    assert re.fullmatch(r"abcd1234-[0-9a-f]{8}-joint", known)
    assert run_id(first, "abcd1234") == known  # continued
    assert run_id(other, "abcd1234") != known  # the same configuration in another experiment
    first.parent.rename(tmp_path / "replaced")
    assert run_id(first, "abcd1234") != known  # force=true
    (first / "wandb_id").write_text("../x\n")
    assert re.fullmatch(r"abcd1234-[0-9a-f]{8}-joint", run_id(first, "abcd1234"))  # damaged


def test_a_training_that_an_earlier_version_began_keeps_its_id(tmp_path):
    (tmp_path / "wandb" / "offline-run-20260101_000000-abcd1234-joint").mkdir(parents=True)
    assert run_id(tmp_path / "joint", "abcd1234") == run_id(tmp_path / "joint", "abcd1234") == "abcd1234-joint"


@pytest.mark.slow
def test_an_interrupted_run_is_uploaded_as_one_run_with_all_of_its_curve(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("logger=wandb", "experiment=x", "epochs=6")

    def interrupt() -> None:
        while not list(tmp_path.glob("x/*/joint/reconstructions/epoch_0002.png")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit):
        train(*words, runs=tmp_path)
    (run,) = (tmp_path / "x").iterdir()
    (old,) = recordings(run).values()
    assert old.exit_code == 1
    train(*words, runs=tmp_path)
    service = Service()
    upload("wandb", "sync", str(run / "wandb"), service=service)
    ((name, rows),) = service.history.items()
    assert name == old.run.run_id
    assert [row["epoch"] for row in rows if "test/acc1" in row] == [0, 1, 2, 3, 4, 5]
    steps = [row["trainer/global_step"] for row in losses(rows)]
    assert steps == sorted(set(steps)) and steps[0] == 0
    assert {row["epoch"] for row in rows if "reconstructions" in row} == {0, 1, 2, 3, 4, 5}
    numbers = [row["_step"] for row in rows]
    assert numbers == sorted(set(numbers))


@pytest.mark.slow
def test_a_training_without_a_network_ends_well_with_one_line(tmp_path):
    words = ("experiment=x", "epochs=1", "mode=ssl_ft", "logger.init_timeout=3")
    done = command(tmp_path, *words, WANDB_BASE_URL=NOBODY, WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "x").iterdir()
    (line,) = done.stderr.splitlines()
    assert line.startswith("logger=wandb: ") and line.endswith(f"upload with: wandb sync {run}/wandb")
    assert recordings(run).keys() == {"pretrain", "finetune"}


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"WANDB_API_KEY": "short"}, "API key must have 40+ characters"),
        ({}, "no W&B key found"),
        ({"WANDB_API_KEY": KEY}, "cannot be reached"),
    ],
)
def test_a_wrong_or_missing_key_or_network_records_offline(tmp_path, drive, env, why):
    found = drive(WANDB_BASE_URL=NOBODY, **env)
    (line,) = found.lines
    assert why in line and f"wandb sync {tmp_path}/run/wandb" in line
    assert len(losses(recordings(tmp_path / "run")["joint"].history)) == ROWS


def test_a_key_that_the_service_refuses_records_offline(tmp_path, drive):
    service = Service(refuse="/graphql")
    (line,) = drive(WANDB_BASE_URL=service.url, WANDB_API_KEY=KEY).lines
    assert "made-up key refused" in line and "wandb sync" in line
    assert recordings(tmp_path / "run")["joint"].run.run_id == "abcd1234-joint"


def test_a_reachable_service_gets_every_row(drive):
    service = Service()
    assert drive(WANDB_BASE_URL=service.url, WANDB_API_KEY=KEY).lines == []
    (given, *_) = [asked for name, asked in service.queries if name == "UpsertBucket" and asked.get("groupName")]
    assert (given["groupName"], given["jobType"], given["name"]) == ("runs", "joint", "abcd1234-joint")
    assert len(losses(service.history["abcd1234-joint"])) == ROWS


@pytest.mark.sampled
@pytest.mark.parametrize("when", ["start", "middle"])
@pytest.mark.parametrize("fault", ["hang", "500", "reset"])
def test_a_failing_service_holds_up_nothing_and_loses_nothing(tmp_path, drive, fault, when):
    service = Service()

    def fail() -> None:
        if when == "middle":
            while not service.history:
                time.sleep(0.01)
        service.fault = fault

    if when == "start":
        fail()
    found = drive(middle=fail, WANDB_BASE_URL=service.url, WANDB_API_KEY=KEY)
    print(f"{fault} {when}: start {found.opened:.1f} s, slowest row {found.slowest:.4f} s, end {found.closed:.1f} s")
    (line,) = found.lines
    option, kind = (" ", "offline-") if when == "start" else (" --include-online ", "")
    assert f"with: wandb sync{option}{tmp_path}/run/wandb" in line
    (file,) = (tmp_path / "run" / "wandb").glob(f"{kind}run-*/*.wandb")
    deadline = time.monotonic() + 10  # W&B's own process may close its file a moment after it has said that it is done
    while len(losses((one := read_recording(file)).history)) < ROWS and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(losses(one.history)) == ROWS and one.summary["result/seconds"] == 3.0
    assert max(found.opened, found.slowest, found.closed) < service.delay / 2  # it waited for no answer


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["scratch", "ssl_ft"])
def test_a_training_whose_service_hangs_from_the_middle_on_has_the_result_of_one_without(tmp_path, mode):
    service, words = Service(), (f"mode={mode}", "experiment=x", "epochs=4", "logger.finish_timeout=2")

    def hang() -> None:
        while not service.history:
            time.sleep(0.01)
        service.fault = "hang"

    threading.Thread(target=hang, daemon=True).start()
    done = command(tmp_path / "hangs", *words, WANDB_BASE_URL=service.url, WANDB_API_KEY=KEY)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert all(line.startswith("logger=wandb: ") for line in done.stderr.splitlines())
    alone = command(tmp_path / "alone", *words, WANDB_MODE="disabled")
    assert alone.returncode == 0
    metrics = [record_of(next((tmp_path / name / "x").iterdir()))["metrics"] for name in ("hangs", "alone")]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_a_service_that_vanishes_costs_one_line_and_no_time(drive):
    service = Service()

    def vanish() -> None:
        time.sleep(1)
        service.stop()

    found = drive(middle=vanish, WANDB_BASE_URL=service.url, WANDB_API_KEY=KEY)
    (line,) = found.lines
    assert "wandb sync --include-online" in line
    assert found.slowest < HANGS and found.closed < 4 * HANGS


@pytest.mark.slow
def test_what_a_failing_service_missed_is_uploaded_by_the_command_of_the_warning(tmp_path, drive):
    refusing = Service(refuse="file_stream")
    (line,) = drive(WANDB_BASE_URL=refusing.url, WANDB_API_KEY=KEY).lines
    words = line.partition("with: ")[2].split()
    assert words[:3] == ["wandb", "sync", "--include-online"], line
    service = Service()
    upload(*words, service=service)
    assert len(losses(service.history["abcd1234-joint"])) == ROWS


@pytest.mark.sampled
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_hanging_wandb_process_does_not_hold_up_the_training(drive, monkeypatch, death):
    monkeypatch.setattr("ssat.tracking.logger.GRACE", 1)

    found = drive(middle=lambda: strike(death), WANDB_MODE="offline")
    assert found.slowest < HANGS and found.closed < 4 * HANGS
    assert len([line for line in found.lines if line.startswith("logger=wandb: ")]) == 1


def test_only_rank_0_talks_to_wandb(tmp_path, drive):
    drive(WANDB_MODE="offline", RANK="1", WORLD_SIZE="2")
    assert not (tmp_path / "run" / "wandb").exists()


@pytest.mark.slow
def test_two_processes_make_one_run(tmp_path):
    done = command(tmp_path, "trainer=ddp_cpu", "experiment=x", "epochs=1", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "x").iterdir()
    (one,) = recordings(run).values()
    assert one.exit_code == 0 and "result/acc1" in one.summary


@pytest.mark.slow
def test_a_sweep_of_one_process_makes_one_finished_run_each(tmp_path):
    done = command(tmp_path, "seed=0,1", "mode=scratch", "experiment=x", "epochs=1", sweep=True, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    seeds = set()
    for run in (tmp_path / "x").iterdir():
        (one,) = recordings(run).values()
        seeds.add(one.config["seed"])
        assert one.exit_code == 0 and "result/acc1" in one.summary
    assert seeds == {0, 1}


def test_a_run_after_the_death_of_wandbs_process_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    train("logger=wandb", "epochs=1", "seed=0", runs=tmp_path)
    strike(signal.SIGKILL)
    second = train("logger=wandb", "epochs=1", "seed=1", runs=tmp_path)
    assert list(second.glob("wandb/offline-run-*/*.wandb"))
