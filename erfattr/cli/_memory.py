"""How much memory is there, and what certainly does not fit into it."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

# Bytes that the trace of a ResNet-18 takes for each row and column, measured from 1,024 to 32,768 pixels.
_TRACED = 10_000.0


class _Prepared(Protocol):
    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def channels(self) -> int: ...


def available_memory() -> float:
    """Return how many bytes this process can still get; infinity where the system does not say it."""
    found = [math.inf]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        found.append(1024.0 * sum(int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree")))
    # The limit of a container; "max" where there is none. What its file cache holds can be given up.
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            most = float(Path(limit).read_text(encoding="ascii"))
            used = float(Path(usage).read_text(encoding="ascii"))
            cached = 0.0
            for line in Path(limit).with_name("memory.stat").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name in ("inactive_file", "total_inactive_file"):
                    cached = max(cached, float(value))
            found.append(most - used + cached)
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            found.append(float(soft - pages * os.sysconf("SC_PAGE_SIZE")))
    return max(min(found), 0.0)


def refuse_beyond_memory(prepared: _Prepared, batch_size: int, embedded: int) -> None:
    """Raise where the images alone, without anything that a network makes of them, are too much.

    Args:
        prepared: Size and channels of the images.
        batch_size: How many are run at a time.
        embedded: How many are held beside the batch all the time.
    """
    height, width = prepared.size
    image = 4.0 * prepared.channels * height * width
    # A batch (its gradient may be that of a crop), and two maps in double precision: mean and standard error.
    # What is held is read as bytes first.
    needed = image * batch_size + 2 * 8.0 * height * width + 1.25 * image * embedded
    there = available_memory()
    if needed > there:
        raise ValueError(
            f"--size: images of {height} x {width} pixels, {batch_size} at a time, need at least "
            f"{in_gigabytes(needed)} of memory, and {in_gigabytes(there)} is there; give a smaller --size, "
            "--batch-size or --count"
        )


def refuse_sides_beyond_memory(size: tuple[int, int]) -> None:
    """Raise where what a trace keeps of the positions along each axis is too much."""
    needed = _TRACED * sum(size)
    there = available_memory()
    if needed > there:
        raise ValueError(
            f"--size: to trace {size[0]} x {size[1]} pixels takes about {in_gigabytes(needed)} of memory, "
            f"and {in_gigabytes(there)} is there; give a smaller --size"
        )


def in_gigabytes(count: float) -> str:
    """Return a number of bytes as a person reads it."""
    return f"{count / 1e9:,.1f} GB"
