"""Where a network is trained, in words and numbers.

Importing this module imports no torch: the command line offers the words in its help.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from erfattr._checks import check_bool, check_choice, check_non_negative_int, check_positive_int

ACCELERATORS = ("auto", "cpu", "gpu")
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# More than so many only wait for each other.
_WORKERS_PER_PROCESSOR = 16


@dataclass(frozen=True)
class Hardware:
    """Where a network is trained.

    Attributes:
        accelerator: Lightning's word: ``"cpu"``, ``"gpu"`` or ``"auto"``, a GPU if there is one.
        devices: Number of GPUs, or of processes on the CPU. They share every batch.
        precision: Lightning's word: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        num_workers: Processes that prepare images, for each device; 0 prepares them between the steps.
        resident: Keep the images on the device and change them there, a batch at a time
            (`ResidentBatches`): a fast GPU does not wait for processors. The changes are drawn from the same
            distributions, but are not those of a run without it.
        cuda_graph: Replay a step's forward and backward pass as one CUDA graph, and write checkpoints in a
            thread: a fast GPU does not wait for one processor. For networks that do the same in every step;
            needs ``resident``, one device and, to have an effect, a GPU. A network that cannot be captured is
            trained without, with a warning.

    Raises:
        TypeError: ``devices`` or ``num_workers`` is not an integer, ``resident`` or ``cuda_graph`` not a
            boolean.
        ValueError: an unknown word, a number that is too small, or ``cuda_graph`` without what it needs.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: Precision = "32-true"
    num_workers: int = 0
    resident: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        check_choice("accelerator", self.accelerator, ACCELERATORS)
        check_positive_int("devices", self.devices)
        check_choice("precision", self.precision, PRECISIONS)
        check_non_negative_int("num_workers", self.num_workers)
        check_bool("resident", self.resident)
        check_bool("cuda_graph", self.cuda_graph)
        if self.cuda_graph and not self.resident:
            raise ValueError("cuda_graph: expected resident=True beside it, got resident=False")
        if self.cuda_graph and self.devices != 1:
            raise ValueError(f"cuda_graph: expected devices=1 beside it, got devices={self.devices}")

    def check_available(self) -> None:
        """Raise unless this machine has it, before anything long begins.

        Raises:
            ValueError: there is no GPU, or there are too few; far more processes than processors.
        """
        import torch

        most = _WORKERS_PER_PROCESSOR * (os.cpu_count() or 1)
        if self.num_workers > most:
            raise ValueError(f"num_workers: expected at most {most} on this machine, got {self.num_workers}")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        has_mps = torch.backends.mps.is_available()
        if self.accelerator == "gpu" and not gpus and not has_mps:
            raise ValueError("accelerator: expected one that this machine has, got 'gpu' without a GPU")
        if self.accelerator != "cpu" and gpus and self.devices > gpus:
            raise ValueError(f"devices: expected at most this machine's {gpus} GPUs, got {self.devices}")
