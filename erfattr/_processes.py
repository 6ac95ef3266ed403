"""Several processes that share the work: who am I, and did all of us get here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

_T = TypeVar("_T")

Distributed = Literal[False, "auto"]

JOIN_WITHIN = 60.0
"""Seconds that processes wait for each other before a map; after a training step they are there at once."""

_LOOK_EVERY = 0.02
_HERE = b"here"
# How often the processes of a group have met, by the group.
_meetings: dict[int, list[int]] = {}


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


def best_device() -> tuple[str, str]:
    """Return ``"cuda"`` where each process of this machine can have a GPU, else ``"cpu"``; in words too."""
    world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    several = f"{world} processes" if world > 1 else "one process"
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and gpus >= world:
        names = ", ".join(f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(world))
        return "cuda", f"device: {several}, on {names}"
    return "cpu", f"device: {several}, on the CPU ({gpus} GPUs)"


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


def sharing(distributed: Distributed) -> tuple[int, int]:
    """Return rank and number of the processes that share the work, once all of them are there.

    They meet at the store that the group was formed with, not in a collective: one that is not joined would
    wait for half an hour, and leave the group unusable.

    Args:
        distributed: ``"auto"``: all processes of the group share, if there is one; ``False``: this one works
            alone.

    Raises:
        ProcessError: a process did not come within `JOIN_WITHIN` seconds.
    """
    rank, world = rank_and_world()
    if distributed is False or world == 1:
        return 0, 1
    store = _default_store()
    group = _meetings.setdefault(id(dist.group.WORLD), [0])
    keys = [f"erfattr/meeting/{group[0]}/{other}" for other in range(world)]
    store.set(keys[rank], _HERE.decode())
    missing = list(range(world))
    deadline = time.monotonic() + JOIN_WITHIN
    while missing:
        missing = [r for r in missing if not (store.check([keys[r]]) and store.get(keys[r]) == _HERE)]
        if missing and time.monotonic() > deadline:
            store.set(keys[rank], "gone")
            raise ProcessError(
                f"distributed: process {rank} of {world} computes a map, which all processes of the "
                f"torch.distributed group share, but {_named(missing)} did not join within "
                f"{JOIN_WITHIN:g} s; "
                "call attribute in every process, or pass distributed=False to compute it in this one alone"
            )
        if missing:
            time.sleep(_LOOK_EVERY)
    group[0] += 1
    return rank, world


def _named(ranks: Sequence[int]) -> str:
    return f"process {ranks[0]}" if len(ranks) == 1 else f"processes {', '.join(map(str, ranks))}"


def _default_store() -> Any:
    return dist.distributed_c10d._get_default_store()


def first_says(answer: _T) -> _T:
    """Return the first process's answer, in all of them."""
    told: list[Any] = [answer]
    dist.broadcast_object_list(told, src=0)
    return told[0]  # type: ignore[no-any-return]


def agree(mine: _T | None, failure: BaseException | None) -> _T | None:
    """Tell the other processes how it went, and return the first process's value that is not ``None``.

    Raises:
        Exception: ``failure`` itself, where this process failed.
        ProcessError: another process failed; its error is told.
    """
    return next((value for value in all_told(mine, failure) if value is not None), None)


def all_told(mine: _T, failure: BaseException | None) -> list[_T]:
    """Tell the other processes how it went, and return the values of all.

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
    return [value for value, _ in told]


def summed(value: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, on its own device."""
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    total = value.to(device, copy=True)
    dist.all_reduce(total)
    return total.to(value.device)
