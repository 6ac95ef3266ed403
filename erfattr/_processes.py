"""Several processes that share the work: who am I, and did all of us get here."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

_T = TypeVar("_T")


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes: (0, 1) outside an initialised group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def agree(mine: _T | None, failure: Exception | None) -> _T | None:
    """Tell the other processes how it went, and return the first process's value that is not ``None``.

    Raises:
        Exception: ``failure`` itself, where this process failed.
        RuntimeError: another process failed; its error is told.
    """
    told: list[Any] = [None] * dist.get_world_size()
    message = None if failure is None else f"{type(failure).__name__}: {failure}"
    dist.all_gather_object(told, (mine, message))
    if failure is not None:
        raise failure
    for rank, (_, text) in enumerate(told):
        if text is not None:
            raise RuntimeError(f"process {rank} of {len(told)} failed: {text}")
    return next((value for value, _ in told if value is not None), None)


def summed(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, on its own device."""
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    total = value.to(device, copy=True)
    dist.all_reduce(total)
    return total.to(value.device)
