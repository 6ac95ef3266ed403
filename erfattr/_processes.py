"""Several processes that share the work: who am I, and did all of us get here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

_T = TypeVar("_T")


class ProcessError(RuntimeError):
    """Another process of the group failed."""


@contextmanager
def process_group(device: str) -> Iterator[tuple[int, int, str]]:
    """Join the processes that ``torchrun`` started, if it did; give rank, number of processes and device.

    Processes on ``cuda`` take the GPU of their local rank and reduce with nccl, others with gloo.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield 0, 1, device
        return
    if device == "cuda":
        device = f"cuda:{dist.get_node_local_rank(0)}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size(), device
    except RuntimeError as error:
        # What the backend says of sockets is nothing that a user could act on.
        if isinstance(error, ProcessError) or not _is_lost(error):
            raise
        raise ProcessError("another process of the group has ended; it has said why") from error
    finally:
        dist.destroy_process_group()


def _is_lost(error: RuntimeError) -> bool:
    """Whether the backend lost the connection to another process."""
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection closed", "connection reset"))


def together(task: Callable[[], _T]) -> _T:
    """Do what each process does by itself, such as loading; where one fails, all do.

    Raises:
        ProcessError: another process failed; its error is told.
    """
    if rank_and_world()[1] == 1:
        return task()
    try:
        result = task()
    except (Exception, SystemExit) as error:
        agree(None, error)
        raise  # which `agree` has done
    agree(None, None)
    return result


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes: (0, 1) outside an initialised group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_first_process() -> bool:
    """Whether this process is the one that writes and reports, of those that share the work.

    A launcher starts the processes before they form a group, and Lightning starts its own in the middle of a
    run, which go through the script from its beginning: until there is a group, their environment tells them.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    # In this order: torchrun sets the first two, Lightning the second; Slurm sets the third for its own.
    given = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return int(next((rank for rank in given if rank is not None), 0)) == 0


def agree(mine: _T | None, failure: BaseException | None) -> _T | None:
    """Tell the other processes how it went, and return the first process's value that is not ``None``.

    Raises:
        Exception: ``failure`` itself, where this process failed.
        ProcessError: another process failed; its error is told.
    """
    told: list[Any] = [None] * dist.get_world_size()
    message = None if failure is None else f"{type(failure).__name__}: {failure}"
    dist.all_gather_object(told, (mine, message))
    if failure is not None:
        raise failure
    for rank, (_, text) in enumerate(told):
        if text is not None:
            raise ProcessError(f"process {rank} of {len(told)} failed: {text}")
    return next((value for value, _ in told if value is not None), None)


def summed(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, on its own device."""
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    total = value.to(device, copy=True)
    dist.all_reduce(total)
    return total.to(value.device)
