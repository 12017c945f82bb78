"""`launcher=slurm`: the jobs of a sweep as SLURM jobs, by submitit."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssat.config.schema import Launcher
from ssat.core.errors import UserError
from ssat.sweeps.here import JobProcess, devices_of
from ssat.sweeps.jobs import Job, JobOutcome, own_words

NOTICE = 180  # seconds before its time limit at which a job is told; longer than a run may take to save


def run_on_cluster(jobs: Sequence[Job], launcher: Launcher, folder: Path) -> Iterator[tuple[Job, JobOutcome]]:
    """`launcher=slurm`: an array of SLURM jobs for each number of GPUs; yields each job as it ends.

    Leaving the iteration early leaves SLURM's jobs running and says how to cancel them; those of
    `launcher.executor=local` are stopped.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    waiting: dict[Any, Job] = {}
    numbered = list(enumerate(jobs))
    for gpus in sorted({devices_of(job) for job in jobs}):
        chosen = [(index, job) for index, job in numbered if devices_of(job) == gpus]
        executor = submitit.AutoExecutor(folder / "submitit", cluster=launcher.executor, **requeue(launcher))
        executor.update_parameters(**resources(launcher, gpus))
        sweep = os.getpid() if launcher.executor == "local" else 0
        commands = [
            JobProcess(own_words(job.words), folder / f"{index:03d}-{job.name}.log", sweep=sweep)
            for index, job in chosen
        ]
        try:
            submitted = executor.submit_array(commands)
        except FailedJobError as error:
            raise UserError(f"sbatch refused the jobs: {' '.join(str(error).split())[-300:]}") from error
        waiting |= dict(zip(submitted, (job for _, job in chosen), strict=True))
    print(f"submitted: {', '.join(str(each.job_id) for each in waiting)}", flush=True)
    try:
        while waiting:
            for each in [each for each in waiting if each.done()]:
                yield waiting.pop(each), cluster_outcome(each)
            time.sleep(0.5 if launcher.executor == "local" else 5)
    finally:
        if waiting and launcher.executor == "local":
            for each in waiting:
                each.cancel()
        elif waiting:
            names = " ".join(str(each.job_id) for each in waiting)
            print(f"{len(waiting)} jobs go on without this process; to cancel them: scancel {names}", file=sys.stderr)


def requeue(launcher: Launcher) -> dict[str, Any]:
    """submitit's argument that says how often a job goes on in a new one."""
    return {"slurm_max_num_timeout": launcher.requeue} if launcher.executor == "slurm" else {}


def resources(launcher: Launcher, gpus: int) -> dict[str, Any]:
    """submitit's parameters of a job that asks for `gpus` GPUs."""
    shared = {
        "name": "ssat",
        "timeout_min": launcher.timeout_min,
        "cpus_per_task": launcher.cpus,
        "mem_gb": launcher.memory_gb,
        "gpus_per_node": gpus if launcher.gpus is None else launcher.gpus,
        "tasks_per_node": 1,  # a run starts its own processes
    }
    if launcher.executor == "local":
        return shared
    own = {
        "slurm_partition": launcher.partition,
        "slurm_account": launcher.account,
        "slurm_array_parallelism": launcher.parallel,
        "slurm_signal_delay_s": NOTICE,
        # srun has not taken the CPUs over from sbatch since SLURM 22.05.
        "slurm_srun_args": [f"--cpus-per-task={launcher.cpus}"] if launcher.cpus else None,
        "slurm_setup": list(launcher.setup) or None,
        "slurm_additional_parameters": dict(launcher.sbatch) or None,
    }
    asked = shared | own | {"gpus_per_node": shared["gpus_per_node"] or None}  # some clusters refuse a 0
    return {key: value for key, value in asked.items() if value is not None}


def cluster_outcome(submitted: Any) -> JobOutcome:
    """The outcome that the job sent back, or why there is none: killed, out of time, out of memory."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return submitted.result()
    except FailedJobError as error:
        lines = [line for line in str(error).splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
        return JobOutcome("crashed", lines[-1] if lines else "the job failed", str(error))
    except UncompletedJobError:
        state = submitted.state
        return JobOutcome(
            "crashed", f"job {submitted.job_id} ended without a result (state {state}): {submitted.paths.stderr}"
        )
