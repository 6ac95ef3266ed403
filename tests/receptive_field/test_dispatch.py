"""The mode that watches operators: one thread at a time, and without PyTorch's compiler."""

from __future__ import annotations

import subprocess
import sys
from threading import Event, Thread
from typing import Any

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from erfattr.receptive_field._dispatch import Watching


class Counting(Watching):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.names.append(func.name())
        return func(*args, **kwargs)


def test_every_operator_is_seen_also_where_modes_are_nested() -> None:
    outer, inner = Counting(), Counting()
    with outer:
        value = torch.ones(2) + 1
        with inner:
            value = value.relu()
    assert value.tolist() == [2, 2]
    assert "aten::add.Tensor" in outer.names
    assert inner.names == ["aten::relu"]
    assert not is_in_torch_dispatch_mode()


def test_threads_take_turns_and_leave_nothing_behind() -> None:
    """Left in another order than entered, PyTorch would take a mode for active until the process ends."""
    first_is_in, first_may_go, second_is_in = Event(), Event(), Event()

    def first() -> None:
        with Counting():
            first_is_in.set()
            first_may_go.wait(10)

    def second() -> None:
        with Counting():
            second_is_in.set()

    threads = [Thread(target=first), Thread(target=second)]
    threads[0].start()
    assert first_is_in.wait(10)
    threads[1].start()
    assert not second_is_in.wait(0.2)
    first_may_go.set()
    for thread in threads:
        thread.join(10)
    assert second_is_in.is_set()
    assert not is_in_torch_dispatch_mode()


def test_an_error_inside_ends_the_turn() -> None:
    def fails() -> None:
        try:
            with Counting():
                raise KeyError
        except KeyError:
            pass

    thread = Thread(target=fails)
    thread.start()
    thread.join(10)
    with Counting():
        assert is_in_torch_dispatch_mode()
    assert not is_in_torch_dispatch_mode()


def test_a_map_of_a_few_images_imports_no_compiler_and_no_torchvision() -> None:
    """Each takes seconds, longer than the map."""
    program = """
import sys, torch
from torch import nn
from erfattr import ERF
model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten())
ERF(model, rectify="abs").attribute(torch.rand(2, 3, 8, 8))
print([name for name in ("torch._dynamo", "torchvision") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "[]\n"
