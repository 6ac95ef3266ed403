"""When a figure says that its map is mostly noise."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure

from erfattr.metrics.statistics import MapStatistics, StreamingStatistics
from erfattr.report.noise_banner import draw_banner, noise_in_words


def statistics_of(error: float, images: int) -> MapStatistics:
    mean = torch.ones(5, 5, dtype=torch.float64)
    return MapStatistics(mean, error * mean, images, mean[None], (images,))


def test_half_of_its_value_is_mostly_noise() -> None:
    words = "mostly noise: 9 images, median pixel ± 50 %; for ± 10 % about 225 images"  # 9 * 5^2
    assert noise_in_words(statistics_of(0.5, 9)) == words
    assert noise_in_words(statistics_of(0.49, 9)) == ""


def test_one_image_has_no_error() -> None:
    statistics = StreamingStatistics()
    statistics.update(torch.ones(1, 4, 4))
    assert noise_in_words(statistics.result()) == "one image: its own gradient, not yet a map of the network"


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="statistics: expected a MapStatistics"):
        noise_in_words(torch.ones(4, 4))  # type: ignore[arg-type]


def test_banner_stands_in_the_picture_only_where_there_are_words() -> None:
    ax = Figure().subplots()
    draw_banner(ax, "")
    assert not ax.texts
    draw_banner(ax, "mostly noise: so; and so")
    assert ax.texts[0].get_text() == "mostly noise: so\nand so"
