"""The diagnosis of a grid: agreement by hand, tables, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from erfattr.forecast.cures import forecast_remedies
from erfattr.forecast.forecasting import forecast_map
from erfattr.forecast.grid import grid_sources
from erfattr.report.diagnosis import Diagnosis, Measured, agreement, draw_diagnosis, write_diagnosis


@pytest.fixture
def diagnosis() -> Diagnosis:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    forecast = forecast_map(model, "output", input_size=32)
    noise = torch.rand(2, 32, 32, dtype=torch.float64) / 10
    halves = (forecast + noise[0], forecast + noise[1])
    measured = Measured((halves[0] + halves[1]) / 2, halves, 8)
    sources = grid_sources(model, "output", input_size=32)
    return Diagnosis(forecast, sources, forecast_remedies(model, "output", input_size=32), measured)


def test_agreement_of_halves_that_agree_by_half() -> None:
    # Profiles +-+- with an error that is the same in none of the halves: correlations by hand.
    signal = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64) / 10
    error = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) / 10
    one, two = ((1 + signal + sign * error).repeat(8, 8) for sign in (1, -1))
    found = agreement((1 + signal).repeat(8, 8), Measured((one + two) / 2, (one, two), 2), (2, 2))
    assert found.correlation == pytest.approx(1)
    assert found.reliability != found.reliability  # the halves correlate by 0


def test_sentences_and_tables(diagnosis: Diagnosis) -> None:
    text = diagnosis.tables()
    assert "the output: forecast phase contrast" in text
    assert "the strongest remedy is kernel padding" in text
    assert "measured over 8 images" in text
    assert diagnosis.remedy_rows()[1][0] == "original"
    assert diagnosis.numbers()["sources"]["remainder"] == diagnosis.sources.remainder


def test_figure_shows_forecast_and_measured(diagnosis: Diagnosis) -> None:
    titles = [ax.get_title() for part in draw_diagnosis(diagnosis).subfigs for ax in part.axes]
    assert "forecast" in titles
    assert "measured, 8 images" in titles


def test_what_is_compared_shares_its_colours(diagnosis: Diagnosis) -> None:
    axes = {ax.get_title(): ax for part in draw_diagnosis(diagnosis).subfigs for ax in part.axes}
    forecast, measured = axes["forecast"].images[0], axes["measured, 8 images"].images[0]
    assert forecast.get_clim() == measured.get_clim()
    profiles = [ax.images[0] for title, ax in axes.items() if ": contrast" in title]
    assert len(profiles) == 2
    assert profiles[0].get_clim() == profiles[1].get_clim()
    assert profiles[0].get_clim()[0] >= 0  # a ratio is never below


def test_files_are_written(diagnosis: Diagnosis, tmp_path: Path) -> None:
    paths = write_diagnosis(tmp_path / "out", diagnosis, {"command": ["erfattr"]}, "a stem")
    names = ["diagnosis.png", "forecast.npy", "measured.npy", "result.json", "tables.txt"]
    assert [path.name for path in paths] == names
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["record"] == {"command": ["erfattr"]}
    assert result["remedies"][0]["remedy"] == "original"
