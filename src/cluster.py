"""`launcher=slurm`: the jobs of a sweep as SLURM jobs, by submitit."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.launchers import Command, devices_of
from src.sweep import Job, Outcome, own_words

NOTICE = 180  # seconds before its time limit at which a job is told; longer than a run may take to save


def run_on_cluster(jobs: Sequence[Job], options: dict[str, Any], folder: Path) -> Iterator[tuple[Job, Outcome]]:
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
        executor = submitit.AutoExecutor(folder / "submitit", cluster=options["executor"], **requeue(options))
        executor.update_parameters(**resources(options, gpus))
        commands = [Command(own_words(job.words), folder / f"{index:03d}-{job.name}.log") for index, job in chosen]
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
            time.sleep(0.5 if options["executor"] == "local" else 5)
    finally:
        if waiting and options["executor"] == "local":
            for each in waiting:
                each.cancel()
        elif waiting:
            names = " ".join(str(each.job_id) for each in waiting)
            print(f"{len(waiting)} jobs go on without this process; to cancel them: scancel {names}", file=sys.stderr)


def requeue(options: dict[str, Any]) -> dict[str, Any]:
    return {"slurm_max_num_timeout": options["requeue"]} if options["executor"] == "slurm" else {}


def resources(options: dict[str, Any], gpus: int) -> dict[str, Any]:
    """submitit's parameters of a job that asks for `gpus` GPUs."""
    shared = {
        "name": "ssat",
        "timeout_min": options["timeout_min"],
        "cpus_per_task": options["cpus"],
        "mem_gb": options["memory_gb"],
        "gpus_per_node": gpus if options["gpus"] is None else options["gpus"],
        "tasks_per_node": 1,  # a run starts its own processes
    }
    if options["executor"] == "local":
        return shared
    own = {
        "slurm_partition": options["partition"],
        "slurm_account": options["account"],
        "slurm_array_parallelism": options["parallel"],
        "slurm_signal_delay_s": NOTICE,
        # srun has not taken the CPUs over from sbatch since SLURM 22.05.
        "slurm_srun_args": [f"--cpus-per-task={options['cpus']}"] if options["cpus"] else None,
        "slurm_setup": list(options["setup"]) or None,
        "slurm_additional_parameters": dict(options["sbatch"]) or None,
    }
    asked = shared | own | {"gpus_per_node": shared["gpus_per_node"] or None}  # some clusters refuse a 0
    return {key: value for key, value in asked.items() if value is not None}


def cluster_outcome(submitted: Any) -> Outcome:
    """The outcome that the job sent back, or why there is none: killed, out of time, out of memory."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return submitted.result()
    except FailedJobError as error:
        lines = [line for line in str(error).splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
        return Outcome("crashed", lines[-1] if lines else "the job failed", str(error))
    except UncompletedJobError:
        state = submitted.state
        return Outcome(
            "crashed", f"job {submitted.job_id} ended without a result (state {state}): {submitted.paths.stderr}"
        )
