"""A real SLURM of one node: its signals save a training, and its requeue goes on with it.

Needs slurmctld and slurmd: `apt-get install slurmctld slurmd slurm-client`, or those packages unpacked with `dpkg -x`
into a folder that SSAT_SLURM names.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT, TINY, record_of

pytestmark = pytest.mark.slow
CONF = """ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
ReturnToService=2
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldPort={first}
SlurmdPort={second}
SlurmdSpoolDir={place}/spool
SlurmUser=root
StateSaveLocation={place}/state
SwitchType=switch/none
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
{more}
"""


def until(said: Callable[[], bool], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a SLURM of this machine takes jobs."""
    unpacked, place = os.environ.get("SSAT_SLURM", ""), tmp_path_factory.mktemp("slurm")
    env, more = dict(os.environ), ""
    if unpacked:
        library = f"{unpacked}/usr/lib/x86_64-linux-gnu"
        env["PATH"] = f"{unpacked}/usr/bin:{unpacked}/usr/sbin:{env['PATH']}"
        env["LD_LIBRARY_PATH"] = f"{library}/slurm-wlm:{library}"
        more = f"PluginDir={library}/slurm-wlm"
    programs = {
        name: shutil.which(name, path=env["PATH"]) or shutil.which(f"{name}-wlm", path=f"{unpacked}/usr/sbin")
        for name in ("slurmctld", "slurmd", "slurmstepd")
    }
    if os.geteuid() or not programs["slurmctld"] or not programs["slurmd"]:
        pytest.skip("needs SLURM's daemons, and root to start them")
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    first, second = (port.getsockname()[1] for port in ports)
    for port in ports:
        port.close()
    for name in ("spool", "state"):
        (place / name).mkdir()
    values = {"host": socket.gethostname(), "place": place, "cpus": os.cpu_count(), "more": more}
    (place / "slurm.conf").write_text(CONF.format(first=first, second=second, **values))
    env["SLURM_CONF"] = str(place / "slurm.conf")
    stepd = ["-d", programs["slurmstepd"]] if unpacked else []
    lines = [[programs["slurmctld"], "-D", "-i"], [programs["slurmd"], "-D", *stepd]]
    with open(place / "log.txt", "w") as log:
        daemons = [subprocess.Popen(line, env=env, stdout=log, stderr=log) for line in lines]
    try:
        until(lambda: "idle" in asked(env, "sinfo", "-h", "-o", "%t"), 60)
        yield env | {"PYTHONPATH": str(ROOT / "src")}
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait()


def asked(env: dict[str, str], *line: str) -> str:
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60).stdout


def settings(run: Path) -> list[str]:
    words = ["mode=scratch", "epochs=30", "eval_every=30", "trainer.progress=off", "checkpoint_minutes=0.001"]
    return [*TINY, *words, f"run_dir={run}"]


def submitted(env: dict[str, str], script: Path, text: str) -> str:
    """The number of the job that runs `text`; its output lies beside the script."""
    script.write_text(text)
    out = str(script.with_suffix(".log"))
    done = asked(env, "sbatch", "--parsable", "--open-mode=append", "--requeue", "-o", out, str(script))
    return done.strip()


def is_over(env: dict[str, str], job: str) -> bool:
    return not asked(env, "squeue", "-h", "-j", job, "-t", "PENDING,CONFIGURING,RUNNING,COMPLETING").strip()


def test_sigusr1_of_a_batch_script_saves_and_the_script_requeues_itself(slurm: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = " ".join([sys.executable, "-m", "ssat.commands", "train", *settings(run)])
    script = f'#!/bin/bash\nsrun -n1 {command} || {{ [ $? -eq 138 ] && scontrol requeue "$SLURM_JOB_ID"; }}\n'
    job = submitted(slurm, tmp_path / "job.sh", script)
    last = run / "scratch" / "checkpoints" / "last.ckpt"
    until(last.exists)
    asked(slurm, "scancel", "--signal=USR1", job)  # to the steps, as --signal=USR1@180 does
    log = tmp_path / "job.log"
    until(lambda: "stopped by SIGUSR1: the same command continues from step" in log.read_text(), 60)
    asked(slurm, "scontrol", "release", job)
    until(lambda: is_over(slurm, job), 400)
    assert "scratch: continuing at step" in log.read_text()
    assert record_of(run)["status"] == "finished"


def test_preemption_saves_and_slurm_requeues_the_job(slurm: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = " ".join([sys.executable, "-m", "ssat.commands", "train", *settings(run)])
    job = submitted(slurm, tmp_path / "job.sh", f"#!/bin/bash\nsrun -n1 {command}\n")
    until((run / "scratch" / "checkpoints" / "last.ckpt").exists)
    asked(slurm, "scontrol", "requeue", job)  # SIGTERM, as a preemption with PreemptMode=REQUEUE
    until(lambda: "stopped by SIGTERM: the same command continues" in (tmp_path / "job.log").read_text(), 60)
    until(lambda: "BeginTime" in asked(slurm, "squeue", "-h", "-j", job, "-o", "%r"), 60)
    asked(slurm, "scontrol", "update", f"JobId={job}", "StartTime=now")  # not two minutes later
    until(lambda: is_over(slurm, job), 400)
    assert "scratch: continuing at step" in (tmp_path / "job.log").read_text()
    assert record_of(run)["status"] == "finished"
