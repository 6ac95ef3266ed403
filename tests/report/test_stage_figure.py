"""Stages x networks in one figure: scale, letters, boxes, insets, words, and that all of it is legible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor, nn

from erfattr.metrics.statistics import MapSource, MapStatistics
from erfattr.receptive_field.trace import receptive_fields
from erfattr.report.stage_figure import draw_stages


def bell(sigma: float, size: int = 128, center: tuple[float, float] = (60, 64)) -> Tensor:
    y, x = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    return torch.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / (2 * sigma**2))


def statistics(layer: str, sigma: float, error: float = 0.1, images: int = 64) -> MapStatistics:
    mean = bell(sigma)
    source = MapSource(layer, (30, 32), (64, 64), (60.0, 64.0), None, "relu", (128, 128))
    return MapStatistics(mean, error * mean, images, mean[None], (images,), source)


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.images]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def patch(ax: Axes, name: str) -> Any:
    return next((patch for patch in ax.patches if patch.get_gid() == name), None)


@pytest.mark.parametrize("width", [85, 170.0])
def test_width_is_exact_and_no_letter_below_six_points(width: float) -> None:
    maps = {"one": {f"layer{index}": bell(4.0 * index) for index in range(1, 5)}}
    figure = draw_stages(maps, width=width)
    assert figure.get_figwidth() * 25.4 == pytest.approx(width, rel=1e-12)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text().strip()]
    assert min(text.get_fontsize() for text in texts) >= 6
    written = [*figure.texts, *(text for ax in figure.axes for text in (*ax.texts, ax.xaxis.label))]
    for text in written:
        box = text.get_window_extent()
        assert box.x0 >= -0.5, text.get_text()
        assert box.x1 <= figure.bbox.width + 0.5, text.get_text()
        assert box.y0 >= -0.5, text.get_text()
        assert box.y1 <= figure.bbox.height + 0.5, text.get_text()


def test_rows_are_networks_with_letters_in_order_and_one_scale() -> None:
    maps = {"a net": {"layer1": bell(8), "layer2": bell(20)}, "another": {"stage": bell(30)}}
    figure = draw_stages(maps)
    drawn = panels(figure)
    for ax, values in zip(drawn, (bell(8), bell(20), bell(30)), strict=True):
        expected = (values / values.mean()).numpy()
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), expected, rtol=1e-12)
    assert len({id(ax.images[0].norm) for ax in drawn}) == 1
    said = words(figure)
    assert [word for word in said if len(word) == 1] == ["a", "b", "c"]
    assert {"layer1", "layer2", "stage", "a net", "another"} <= set(said)
    tops = [ax.get_position().y1 for ax in drawn]
    assert tops[0] == tops[1] > tops[2]


def test_scale_is_logarithmic_where_a_panel_would_be_dark_and_said() -> None:
    figure = draw_stages({"net": {"deep": bell(30), "shallow": bell(2)}})
    assert isinstance(panels(figure)[0].images[0].norm, LogNorm)
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert "sensitivity relative to each map's mean (logarithmic)" in labels
    linear = draw_stages({"net": {"deep": bell(30), "shallow": bell(2)}}, norm="linear", cmap="viridis")
    assert type(panels(linear)[0].images[0].norm) is Normalize
    assert panels(linear)[0].images[0].get_cmap().name == "viridis"


def test_scales_of_their_own_are_said() -> None:
    figure = draw_stages({"net": {"deep": bell(30), "shallow": bell(2)}}, shared_scale=False)
    first, second = (ax.images[0].norm for ax in panels(figure))
    assert (type(first), type(second)) == (Normalize, LogNorm)
    assert "colours do not compare between panels" in words(figure)[-1].replace("\n", " ")
    assert all(ax.images for ax in figure.axes)  # no bar that would hold for all


def test_box_is_drawn_where_it_lies_inside_and_its_size_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 11, 2, 5), nn.ReLU(), nn.Conv2d(4, 4, 63, 1, 31))
    fields = {"net": receptive_fields(model, 128)}
    maps = {"net": {"0": statistics("0", 4), "2": statistics("2", 20)}}
    figure = draw_stages(maps, fields)
    inside, outside = panels(figure)
    assert fields["net"]["0"].bounds((30, 32)) == (55, 59, 65, 69)
    assert patch(inside, "trf").get_bbox().extents.tolist() == [58.5, 54.5, 69.5, 65.5]
    assert patch(outside, "trf") is None  # 135 pixels
    assert {"TRF 11", "TRF 135"} <= set(words(figure))
    assert "Dashed: theoretical receptive field" in words(figure)[-1].replace("\n", " ")


def test_insets_are_whole_dots_about_the_centre_in_the_emptiest_corner() -> None:
    values = bell(10) + 0.5 * bell(10, center=(120, 120))
    figure = draw_stages({"net": {"layer": values}}, width=85, zoom=16)
    (ax,) = panels(figure)
    (inset,) = ax.child_axes
    # About the middle, for a map without a source: (63.5, 63.5).
    assert tuple(inset.images[0].get_extent()) == (55.5, 71.5, 71.5, 55.5)
    window = (values / values.mean())[56:72, 56:72]
    assert inset.images[0].get_clim() == pytest.approx((0, float(window.max())), rel=1e-12)
    figure.draw_without_rendering()
    box, whole = inset.get_window_extent(), ax.get_window_extent()
    assert box.y0 - whole.y0 > whole.height / 2 or box.x0 - whole.x0 < whole.width / 2  # not lower right
    # A pixel of the inset is a whole number of the file's dots, at the resolution of the map's own.
    dots = whole.width / 128 / (whole.width / 128 / np.ceil(300 * whole.width / figure.dpi / 128))
    each = box.width / whole.width * 128 * dots / 16
    assert each == pytest.approx(round(each), abs=1e-9)
    assert not panels(draw_stages({"net": {"layer": values}}, zoom=None))[0].child_axes
    assert not panels(draw_stages({"net": {"layer": values}}, zoom=100))[0].child_axes  # half the map


def test_bar_is_a_power_of_two_of_pixels() -> None:
    figure = draw_stages({"net": {"layer": bell(20), "next": bell(20)}})
    first, second = panels(figure)
    assert patch(first, "scale bar").get_width() == 32  # 0.3 of 128 is 38
    assert [text.get_text() for text in first.texts] == ["32 px"]
    assert patch(second, "scale bar") is None
    mixed = draw_stages({"net": {"layer": bell(20), "next": bell(20, 64, (32, 32))}})
    assert [patch(ax, "scale bar").get_width() for ax in panels(mixed)] == [32, 16]


def test_panels_that_are_noise_are_named_in_the_figure() -> None:
    maps = {"net": {"known": statistics("a", 20), "noisy": statistics("b", 20, error=0.8, images=4)}}
    said = [word.replace("\n", " ") for word in words(draw_stages(maps))]
    assert "b: mostly noise: 4 images, median pixel ± 80 %; for ± 10 % about 256 images" in said
    assert any(word.startswith("Maps over 4 to 64 images.") for word in said)
    del maps["net"]["noisy"]
    assert not any("noise" in word for word in words(draw_stages(maps)))


def test_long_names_keep_their_end_and_notes_stand_below() -> None:
    name = "encoder.layers.encoder_layer_11"
    figure = draw_stages(
        {"a network with a long name": {f"{index}.{name}": bell(20) for index in range(4)}},
        width=85,
        notes=["Weights: none."],
    )
    shown = [word for word in words(figure) if word.startswith("…")]
    assert len(shown) == 5
    assert all(name.endswith(word[1:]) for word in shown if "layer" in word)
    assert words(figure)[-1].endswith("Weights: none.")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"maps": {}}, ValueError, "maps: expected at least one map of each network, got none"),
        ({"maps": {"net": {}}}, ValueError, "maps: .* got 0 of 'net'"),
        ({"maps": {"net": {"a": "text"}}}, TypeError, r"maps\['net'\]\['a'\]: expected a map"),
        ({"maps": {"net": {"a": torch.zeros(8, 8)}}}, ValueError, r"maps\['net'\]\['a'\]: .* positive mean"),
        ({"width": "85"}, TypeError, "width: expected millimetres"),
        ({"width": 10}, ValueError, "width: expected at least 18 mm for 1 stages, got 10"),
        ({"width": float("nan")}, ValueError, "width: expected at least"),
        ({"zoom": 0}, ValueError, "zoom: expected a positive integer"),
        ({"norm": "loud"}, ValueError, "norm: expected 'linear', 'log'"),
        ({"cmap": "mud"}, ValueError, "cmap: expected the name"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    maps = arguments.pop("maps", {"net": {"a": torch.ones(8, 8)}})
    with pytest.raises(error, match=message):
        draw_stages(maps, **arguments)
