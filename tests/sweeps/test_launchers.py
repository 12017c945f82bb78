"""Jobs as processes of their own: real commands, submitit's own local executor, and SLURM's variables."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ssat.config.fields import parse
from ssat.config.schema import Launcher, Trainer
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.core.launch import is_main_process, launched_externally, without_slurm
from ssat.runs.begun import locked
from ssat.sweeps.here import JobProcess, check_launcher, read_outcome, run_here, share, thread_words
from ssat.sweeps.jobs import Job, JobOutcome
from ssat.sweeps.slurm import resources
from tests.helpers import ROOT, TINY, record_of, start, wait_for
from tests.sweeps.test_sweep import QUICK, finished_in, sweep

SLURM = {  # of a batch script with one task, as submitit's
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NAME": "ssat",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def launcher_of(*words: str) -> Launcher:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = OmegaConf.to_container(compose("train", overrides=list(words)).launcher, resolve=True)
    return parse(Launcher, plain, "launcher")


def job(*words: str, name: str = "run", **trainer) -> Job:
    """A job that the launcher sees: its words, and its trainer's keys."""
    return Job(name, "", words, SimpleNamespace(trainer=Trainer(**trainer)))


ON_CPU = {"accelerator": "cpu", "threads": 1}


@pytest.mark.parametrize(
    ("code", "log", "outcome"),
    [
        (0, "run folder: x\nr: test/acc1 last 9 %\n", JobOutcome("finished", "r: test/acc1 last 9 %")),
        (0, "skipped, already finished in x: y\n", JobOutcome("skipped", "skipped, already finished in x: y")),
        (2, "a warning\nerror: lam=7 is outside [0, 1]\n", JobOutcome("refused", "lam=7 is outside [0, 1]")),
        (-9, "", JobOutcome("crashed", "killed by SIGKILL: the machine's memory may have run out")),
        (-11, "", JobOutcome("crashed", "killed by SIGSEGV")),
        (130, "interrupted: the same command continues\n", JobOutcome("stopped")),
        (143, "", JobOutcome("stopped")),
    ],
)
def test_exit_code_and_output_say_what_became_of_a_job(code, log, outcome):
    assert read_outcome(code, log) == outcome


def test_a_crashs_reason_is_its_exception_and_its_traceback_is_kept():
    trace = 'Traceback (most recent call last):\n  File "x.py"\ntorch.OutOfMemoryError: CUDA out of memory\n'
    outcome = read_outcome(1, "epoch 1\n" + trace + "bye\n")
    assert outcome.reason == "torch.OutOfMemoryError: CUDA out of memory"
    assert outcome.details == trace + "bye\n"


def test_every_job_at_the_same_time_gets_gpus_of_its_own_as_far_as_they_go():
    gpus = ["0", "1", "2", "3"]
    assert [share(slot, job(), gpus)["CUDA_VISIBLE_DEVICES"] for slot in range(5)] == ["0", "1", "2", "3", "0"]
    assert [share(slot, job(devices=2), gpus)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0,1", "2,3"]
    assert share(0, job(accelerator="cpu"), gpus) == share(0, job(), []) == {}


def test_threads_are_shared_out_over_a_jobs_processes_unless_it_says_how_many():
    assert thread_words(job(devices=2), 8) == ["trainer.threads=4"]
    assert thread_words(job(devices=4), 1) == ["trainer.threads=1"]
    assert thread_words(job(threads=3), 8) == []


def test_a_slurm_job_asks_for_what_its_run_uses():
    launcher = launcher_of("launcher=slurm", "launcher.partition=gpu", "+launcher.sbatch.qos=long")
    asked = resources(launcher, 2)
    assert (asked["gpus_per_node"], asked["tasks_per_node"], asked["slurm_partition"]) == (2, 1, "gpu")
    assert asked["slurm_additional_parameters"] == {"qos": "long"}
    assert not {"gpus_per_node", "slurm_account"} & resources(launcher, 0).keys()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["launcher=processes", "launcher.jobs=0"], "launcher.jobs=0 is not possible"),
        (
            ["launcher=slurm", "launcher.executor=pbs"],
            "it must be one of slurm, local",
        ),
        (["launcher=slurm", "launcher.executor=local", "launcher.cpus=a"], "launcher.cpus='a' is not possible"),
        (["launcher=slurm"], "finds no srun"),
    ],
)
def test_a_wrong_value_of_the_launcher_is_refused_before_the_first_job(monkeypatch, words, sentence):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=sentence):
        check_launcher(launcher_of(*words), [job()])


def test_joblib_is_another_name_of_processes():
    assert launcher_of("launcher=processes") == launcher_of("launcher=joblib")


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"needs the package submitit: run pip install '\.\[slurm\]'"):
        check_launcher(launcher_of("launcher=slurm"), [job()])


def test_a_run_on_several_nodes_is_not_a_job_of_the_launcher(monkeypatch):
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match="start trainer.num_nodes > 1 with srun"):
        check_launcher(launcher_of("launcher=slurm", "launcher.executor=local"), [job(num_nodes=2)])


@pytest.fixture
def slurm(monkeypatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_batch_script_of_slurm_is_no_rank_of_a_group(slurm):
    assert not launched_externally()
    slurm.setenv("SLURM_NTASKS", "4")  # sbatch --ntasks=4 without srun: the script runs once
    assert not launched_externally()
    assert is_main_process()


def test_a_task_of_srun_is_a_rank(slurm):
    slurm.setenv("SLURM_STEP_NUM_TASKS", "2")
    slurm.setenv("SLURM_PROCID", "1")
    assert launched_externally()
    assert not is_main_process()


def test_slurms_variables_are_hidden_from_lightning_and_come_back(slurm):
    with without_slurm():
        assert not [name for name in os.environ if name.startswith("SLURM_")]
    assert os.environ["SLURM_JOB_ID"] == "1234"


def test_a_command_that_is_refused_says_why_in_its_outcome(tmp_path):
    outcome = JobProcess(["encoder=vit_x"], tmp_path / "job.log")()
    assert outcome.status == "refused"
    assert "encoder=vit_x does not exist" in outcome.reason


def test_a_killed_job_is_a_failed_one_and_the_others_go_on(tmp_path):
    words = [*TINY, "epochs=1000", f"runs_dir={tmp_path}"]
    given = [job(*words, name="long", **ON_CPU), job("encoder=vit_x", name="refused", **ON_CPU)]
    jobs = run_here(given, launcher_of("launcher=processes"), tmp_path / "logs")
    done = [next(jobs)]
    for pid in pids_of(tmp_path):
        os.kill(pid, signal.SIGKILL)
    done += list(jobs)
    assert [(each.name, outcome.status) for each, outcome in done] == [("refused", "refused"), ("long", "crashed")]
    assert done[1][1].reason.startswith("killed by SIGKILL")


def test_a_sweep_that_is_stopped_stops_its_jobs_too(tmp_path):
    words = (*TINY, "epochs=1000", "checkpoint_minutes=0.001", f"runs_dir={tmp_path}")
    given = [job(*words, name="long", **ON_CPU), job("encoder=vit_x", name="refused", **ON_CPU)]
    jobs = run_here(given, launcher_of("launcher=processes"), tmp_path / "logs")
    next(jobs)
    assert pids_of(tmp_path)
    jobs.close()
    assert not pids_of(tmp_path)


def pids_of(folder: Path) -> list[int]:
    """The running jobs whose output goes to a log below `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            output = (process / "fd" / "1").readlink()
        except OSError:
            continue
        if output.suffix == ".log" and output.is_relative_to(folder):
            found.append(int(process.name))
    return found


@pytest.mark.slow
def test_several_jobs_at_once_finish_and_a_refused_one_is_reported(tmp_path):
    words = ["launcher=processes", "launcher.jobs=2", "seed=0,1", "ssl.decoder_heads=16,7", "experiment=several"]
    result = sweep(*words, runs=tmp_path)
    assert "sweep: 2 finished, 0 skipped (already finished), 2 failed" in result.stdout, result.stderr
    assert result.returncode == 2
    assert len(finished_in(tmp_path / "several")) == 2
    assert len(list(tmp_path.glob(".sweeps/*/*.log"))) == 4


@pytest.mark.slow
def test_a_job_on_a_folder_that_is_in_use_fails_with_that_sentence(tmp_path):
    run = tmp_path / "mine" / "run"
    run.mkdir(parents=True)
    with locked(run):
        result = sweep(f"run_dir={run}", "launcher=processes", runs=tmp_path)
    assert f"another process is training in {run}" in result.stdout
    assert result.returncode == 2


@pytest.mark.slow
def test_ctrl_c_stops_the_jobs_and_prints_the_summary_so_far(tmp_path):
    line = [sys.executable, "-m", "src.train", "-m", *TINY, *QUICK, f"runs_dir={tmp_path}", "launcher=processes"]
    line += ["seed=0,1,2", "epochs=1000", "checkpoint_minutes=0.001"]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("*/*/joint/checkpoints/last.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "sweep: 0 finished, 0 skipped (already finished), 0 failed, 3 not finished" in out
    assert "interrupted: the same command continues" in err
    assert "Traceback" not in err
    assert not pids_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "signals"),
    [
        (["launcher=processes", "launcher.jobs=1"], ["SIGUSR1"]),
        (["launcher=packed", "launcher.per_device=1"], ["SIGTERM", "SIGTERM", "SIGUSR2"]),
    ],
    ids=["processes", "packed"],
)
def test_all_signals_let_the_jobs_save_however_many_come(tmp_path, launcher, signals):
    process = start("-m", *QUICK, *launcher, "mode=scratch", "seed=0,1", "epochs=1000", runs=tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/*/scratch/checkpoints/last.ckpt")), process)
    for name in signals:
        process.send_signal(signal.Signals[name])
        time.sleep(0.05)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 128 + signal.Signals[signals[0]]
    assert err.endswith(f"stopped by {signals[0]}: the same command continues with what is left\n")
    assert "sweep: 0 finished, 0 skipped (already finished), 0 failed, 2 not finished" in out
    (log,) = tmp_path.glob(".sweeps/*/*.log")  # the other job has not begun
    assert "stopped by SIGTERM: the same command continues from step" in log.read_text()


@pytest.mark.slow
def test_submitit_runs_jobs_that_start_their_own_ddp_group(tmp_path):
    pytest.importorskip("submitit")
    words = ["launcher=slurm", "launcher.executor=local", "trainer=ddp_cpu", "seed=0,1", "experiment=cluster"]
    result = sweep(*words, runs=tmp_path)
    assert "sweep: 2 finished, 0 skipped (already finished), 0 failed" in result.stdout, result.stderr
    assert result.returncode == 0
    for path in finished_in(tmp_path / "cluster"):
        assert record_of(path.parent)["hardware"]["processes"] == 2


SBATCH = """#!/bin/bash
# A cluster of one machine: runs an array's tasks with the variables of SLURM.
echo "Submitted batch job 77"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
for task in $(seq 0 "${last:-0}"); do
  export SLURM_JOB_ID=$((77 + task)) SLURM_JOB_NAME=ssat SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1 SLURM_NNODES=1
  export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1 SLURM_STEP_NUM_TASKS=1
  [ -z "$last" ] || export SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$task
  bash "$1" > /dev/null 2>&1 &
done
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do [[ "$1" == --output || "$1" == --error ]] && shift; shift; done
exec "$@"
"""


@pytest.mark.slow
def test_in_a_slurm_job_lightning_sees_our_processes_and_not_slurms(tmp_path, monkeypatch):
    """sbatch and srun are scripts here; submission, job variables, DDP and the way back are the real ones."""
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", "#!/bin/bash\necho 'JobID|State|NodeList'\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    runs = tmp_path / "runs"
    words = ["launcher=slurm", "trainer=ddp_cpu", "seed=0,1", "experiment=cluster", "ssl.decoder_heads=16,7"]
    result = sweep(*words, runs=runs)
    assert "sweep: 2 finished, 0 skipped (already finished), 2 failed" in result.stdout, result.stderr
    assert "is not divisible by ssl.decoder_heads=7" in result.stderr
    assert result.returncode == 2
    for path in finished_in(runs / "cluster"):
        assert record_of(path.parent)["hardware"]["processes"] == 2


@pytest.mark.slow
def test_a_job_that_is_told_of_its_time_limit_saves_and_goes_on_as_another_job(tmp_path):
    pytest.importorskip("submitit")
    words = [
        *TINY,
        "epochs=30",
        "eval_every=30",
        f"runs_dir={tmp_path}",
        "experiment=limit",
        "data.samples_per_class=60",
    ]
    command = JobProcess([*words, "checkpoint_minutes=0.001"], tmp_path / "job.log")
    outcomes: list[JobOutcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(command()))
    thread.start()
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("limit/*/joint/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    again = command.checkpoint()
    thread.join()
    assert outcomes == [JobOutcome("stopped")]
    assert again.function().status == "finished"
    assert "joint: continuing at step" in (tmp_path / "job.log").read_text()


@pytest.mark.slow
def test_a_preempted_job_of_submitit_saves_and_goes_on(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    words = [*TINY, "mode=scratch", "epochs=30", "eval_every=30", f"run_dir={tmp_path / 'run'}"]
    executor = submitit.LocalExecutor(tmp_path / "submitit")
    executor.update_parameters(timeout_min=30)
    submitted = executor.submit(JobProcess([*words, "checkpoint_minutes=0.001"], tmp_path / "job.log"))
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "scratch" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    controller = submitted._process.pid
    (task,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # what SLURM sends before it takes the machine away
    assert submitted.result().status == "finished"
    assert "scratch: continuing at step" in (tmp_path / "job.log").read_text()


@pytest.mark.slow
def test_a_job_of_submitit_ends_with_its_killed_sweep(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    line = [sys.executable, "-m", "src.train", "-m", *TINY, "epochs=1000", f"runs_dir={tmp_path}", "seed=0"]
    process = subprocess.Popen([*line, "launcher=slurm", "launcher.executor=local"], cwd=ROOT, start_new_session=True)
    _kill_once_training(process, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["processes", "packed"])
def test_no_job_outlives_a_killed_sweep(tmp_path: Path, launcher: str) -> None:
    line = [sys.executable, "-m", "src.train", "-m", *TINY, "epochs=1000", f"runs_dir={tmp_path}", "seed=0,1"]
    words = ["data.num_workers=1", "checkpoint_minutes=0.001", f"launcher={launcher}"]
    process = subprocess.Popen([*line, *words], cwd=ROOT, start_new_session=True)
    _kill_once_training(process, tmp_path)


def _kill_once_training(process: subprocess.Popen, runs: Path) -> None:
    """Kill a sweep when the first of its jobs trains; all of them are to end soon."""
    deadline = time.monotonic() + 200
    while not list(runs.glob("*/*/joint/checkpoints")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert pids_of(runs)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while (left := pids_of(runs)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left  # their loaders' processes have the same words
