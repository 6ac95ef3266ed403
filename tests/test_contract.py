"""What every attribution of the package promises: Captum's contract, and the README's example."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from captum.attr import Attribution, GradientAttribution
from torch import Tensor, nn

import erfattr
from erfattr import ERF, DeadPixelMap, DebiasedAttribution

README = Path(__file__).resolve().parent.parent / "README.md"
# Those that make maps of a model; DebiasedAttribution wraps other attributions, see test_debias.py.
ATTRIBUTIONS = [
    value
    for name in erfattr.__all__
    if inspect.isclass(value := getattr(erfattr, name))
    and issubclass(value, Attribution)
    and value is not DebiasedAttribution
]


def test_both_attributions_are_found() -> None:
    assert set(ATTRIBUTIONS) >= {ERF, DeadPixelMap}
    assert issubclass(ERF, GradientAttribution)
    assert issubclass(DeadPixelMap, GradientAttribution)


@pytest.mark.parametrize("attribution", ATTRIBUTIONS)
def test_captums_wrappers_find_what_they_call(attribution: type) -> None:
    # NoiseTunnel calls attribute.__wrapped__, which log_usage() leaves.
    assert callable(attribution.attribute.__wrapped__)  # type: ignore[attr-defined]
    parameters = inspect.signature(attribution.attribute).parameters  # type: ignore[attr-defined]
    assert list(parameters)[:2] == ["self", "inputs"]
    assert "additional_forward_args" in parameters
    assert "show_progress" in parameters


@pytest.mark.parametrize("attribution", ATTRIBUTIONS)
def test_model_is_kept_under_captums_name(
    attribution: Callable[[nn.Module], Attribution], resnet: nn.Module
) -> None:
    assert attribution(resnet).forward_func is resnet


@pytest.mark.parametrize("attribution", ATTRIBUTIONS)
def test_attribution_is_repeatable_and_gives_one_value_a_pixel(
    attribution: Callable[[nn.Module], ERF], resnet: nn.Module, images: Tensor
) -> None:
    first, second = attribution(resnet).attribute(images), attribution(resnet).attribute(images)
    assert torch.equal(first, second)
    assert first.shape == images.shape[2:]
    assert first.dtype == torch.float64
    assert first.min() >= 0
    assert not first.requires_grad


def test_example_of_the_readme() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].strip().splitlines()) <= 11
    names: dict[str, object] = {}
    exec(blocks[0], names)
    result, unit, fit, rf = (names[name] for name in ("R", "unit", "fit", "rf"))
    assert isinstance(result, Tensor)
    assert result.shape == (224, 224)
    assert isinstance(unit, erfattr.MapSource)
    assert (unit.layer, unit.unit, unit.center) == ("layer4", (3, 3), (96.0, 96.0))
    assert isinstance(rf, erfattr.ReceptiveField)
    assert (rf.size, rf.status) == ((435, 435), "exact")
    assert isinstance(fit, erfattr.GaussianFit)
    assert 20 < fit.sigma_x < 112
    assert isinstance(names["imbalance"], Tensor)
    assert 0.05 < names["imbalance"].item() < 1


def test_every_name_is_there_without_the_extras_and_says_what_it_needs() -> None:
    code = """
import sys
for name in ("jinja2", "lightning", "lightning.pytorch", "torchmetrics", "timm", "transformers", "quantus"):
    sys.modules[name] = None
import torch, erfattr
for name in erfattr.__all__:
    getattr(erfattr, name)
monitor = lambda *_: erfattr.DeadPixelMonitor(torch.rand(2, 3, 8, 8))
for make in (erfattr.ImbalanceIndex, erfattr.PhaseContrast, monitor):
    try:
        make(2)
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    named = [line.split(" needs ")[0] for line in lines]
    assert named == ["ImbalanceIndex", "PhaseContrast", "DeadPixelMonitor"]
    assert all(line.endswith("pip install 'erfattr[train]'") for line in lines)
