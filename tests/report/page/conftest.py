"""A page about a small network, measured once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from erfattr.attr.sensitivity_maps import SensitivityMaps
from erfattr.attr.sources import FeatureUnit, ModelOutput
from erfattr.forecast.cures import forecast_remedies
from erfattr.forecast.forecasting import forecast_map
from erfattr.forecast.grid import grid_sources
from erfattr.receptive_field.field import total_stride
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.diagnosis import Diagnosis
from erfattr.report.map_report import analyse_map
from erfattr.report.page.network import Contrast, NetworkPage, SaliencyBeforeAfter, SaliencyExample

SIZE = 48


def measured(name: str, layers: tuple[str, str], images: int = 12) -> NetworkPage:
    """Return the page of a network of two strided layers of these names."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module(layers[0], nn.Conv2d(3, 8, 3, 2, 1))
    model.add_module("relu", nn.ReLU())
    model.add_module(layers[1], nn.Conv2d(8, 8, 3, 2, 1))
    pictures = torch.randn(images, 3, SIZE, SIZE)
    sources = [FeatureUnit(layers[0]), FeatureUnit(layers[1]), ModelOutput()]
    statistics = SensitivityMaps(model, sources).attribute(pictures)
    fields = receptive_fields(model, SIZE)
    reports = [
        analyse_map(found, fields.get(layer), None if layer else total_stride(fields))
        for found, layer in zip(statistics, (*layers, ""), strict=True)
    ]
    maps = dict(zip(("stride 2", "stride 4", "output"), reports, strict=True))
    diagnosis = Diagnosis(
        forecast_map(model, layers[1], input_size=SIZE),
        grid_sources(model, layers[1], input_size=SIZE),
        forecast_remedies(model, layers[1], input_size=SIZE, per_layer=False),
    )
    raw = torch.rand(SIZE, SIZE)
    example = SaliencyExample("image 1, cat", torch.rand(3, SIZE, SIZE), raw, raw.flip(1))
    contrasts = Contrast(0.2, 0.01), Contrast(0.05, 0.02)
    saliency = SaliencyBeforeAfter((example,), "Absolute gradients", images, *contrasts)
    return NetworkPage(
        name, maps, "random", fields, diagnosis, ["halo 32 x 32 pixels"], saliency, {"model": name}, 0.5
    )


@pytest.fixture(scope="session")
def small_page() -> NetworkPage:
    return measured("small", ("first", "second"))


@pytest.fixture(scope="session")
def renamed() -> Callable[[NetworkPage, str], NetworkPage]:
    """Give a page another name."""
    return lambda page, name: replace(page, name=name)
