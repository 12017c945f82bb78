import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from ssat.core.errors import NotEnoughMemory, UserError, enough_memory
from ssat.core.launch import run_processes


def write_rank(folder: Path) -> None:
    dist.init_process_group("gloo")
    (folder / f"rank_{dist.get_rank()}_of_{dist.get_world_size()}").touch()
    dist.barrier()  # neither leaves while the other is still connecting


def refuse() -> None:
    raise UserError("this value is wrong")


def crash() -> None:
    raise ZeroDivisionError("a bug")


def run_out() -> None:
    with enough_memory("the run"):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_one_process_runs_here():
    seen = []
    run_processes(lambda: seen.append(os.getpid()), processes=1)
    assert seen == [os.getpid()]


@pytest.mark.slow
def test_two_processes_form_one_group(tmp_path):
    run_processes(write_rank, tmp_path, processes=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank_0_of_2", "rank_1_of_2"]


@pytest.mark.slow
def test_groups_can_follow_each_other_in_one_program(tmp_path):
    for job in range(2):
        folder = tmp_path / str(job)
        folder.mkdir()
        run_processes(write_rank, folder, processes=2)
        assert len(list(folder.iterdir())) == 2
    assert "RANK" not in os.environ


def test_a_users_mistake_in_a_process_is_raised_here_without_a_traceback(capfd):
    with pytest.raises(UserError, match="^this value is wrong$"):
        run_processes(refuse, processes=2)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_memory_that_runs_out_in_a_process_is_known_as_such_here():
    with pytest.raises(NotEnoughMemory, match="lower recipe.batch_size") as refused:
        run_processes(run_out, processes=2)
    assert refused.value.reason.startswith("DefaultCPUAllocator")


@pytest.mark.slow
def test_a_crash_keeps_its_traceback():
    with pytest.raises(Exception, match=r"(?s)^rank [01] of 2:.*ZeroDivisionError: a bug"):
        run_processes(crash, processes=2)
