from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from erfattr.training.hardware import Hardware


def test_the_default_is_one_device_in_single_precision() -> None:
    assert asdict(Hardware()) == {
        "accelerator": "auto",
        "devices": 1,
        "precision": "32-true",
        "num_workers": 0,
        "resident": False,
        "cuda_graph": False,
    }


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"accelerator": "tpu"}, ValueError, "accelerator: expected one of 'auto', 'cpu', 'gpu', got 'tpu'"),
        ({"devices": 0}, ValueError, "devices: expected a positive integer, got 0"),
        ({"devices": "2"}, TypeError, "devices: expected a positive integer, got '2'"),
        ({"precision": "fp8"}, ValueError, "precision: expected one of '32-true'"),
        ({"resident": 1}, TypeError, "resident: expected True or False, got 1"),
        ({"cuda_graph": 1}, TypeError, "cuda_graph: expected True or False, got 1"),
        (
            {"cuda_graph": True},
            ValueError,
            "cuda_graph: expected resident=True beside it, got resident=False",
        ),
        (
            {"cuda_graph": True, "resident": True, "devices": 2},
            ValueError,
            "cuda_graph: expected devices=1 beside it, got devices=2",
        ),
        ({"num_workers": -1}, ValueError, "num_workers: expected an integer of at least 0, got -1"),
        ({"num_workers": 0.5}, TypeError, "num_workers: expected an integer of at least 0, got 0.5"),
    ],
)
def test_bad_hardware(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Hardware(**options)


def test_what_the_help_lists_is_named_without_torch() -> None:
    code = (
        "import sys, erfattr.training.hardware, erfattr.training.recipes, erfattr.training.tasks; "
        "print({'torch', 'torchvision', 'lightning', 'numpy'} & {*sys.modules})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
