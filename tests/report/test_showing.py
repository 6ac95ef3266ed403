"""The pictures of results: what is refused, and what a poor fit says; more in tests/test_showing.py."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from matplotlib.figure import Figure

from erfattr.metrics.gaussian_fit import fit_gaussian
from erfattr.report.showing import plot


def test_something_else_has_no_picture() -> None:
    with pytest.raises(TypeError, match="result: expected a result of erfattr, got 3"):
        plot(3)


def test_a_fit_that_describes_nothing_says_so() -> None:
    y, x = torch.arange(20.0)[:, None], torch.arange(20.0)
    fit = fit_gaussian(torch.exp(-((y - 10) ** 2 + (x - 9) ** 2) / 30))
    ax = plot(dataclasses.replace(fit, r_squared=0.3), Figure().subplots())
    assert ax.get_title() == "Gaussian fit, $R^2$ = 0.300: no description of its map"
    assert plot(fit, Figure().subplots()).get_title() == "Gaussian fit, $R^2$ = 1.000"
