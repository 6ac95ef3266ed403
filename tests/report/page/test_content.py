"""What stands on a page: rows, maps, differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from erfattr.metrics.corrected_imbalance import compare_imbalance
from erfattr.report.map_report import MapReport
from erfattr.report.page.content import merged_rows, page_content
from erfattr.report.page.network import Missing, NetworkPage
from erfattr.report.page.packing import Packed, unpack


def test_rows_keep_the_order_of_each_network() -> None:
    assert merged_rows([["a", "b", "c"], ["x", "b", "y"], ["y", "z"]]) == ["x", "a", "b", "y", "z", "c"]
    assert merged_rows([]) == []


def test_maps_come_out_as_they_went_in(small_page: NetworkPage) -> None:
    page, data = page_content([small_page], same_images=False)
    numbers = [cells[0]["number"] for _, cells in page["rows"]]
    for number, report in zip(numbers, small_page.measured.values(), strict=True):
        described = data["maps"][number]
        mean = report.statistics.mean.numpy()
        assert unpack(Packed(**described["values"])) == pytest.approx(mean, rel=1.01e-3)
        assert described["mean"] == mean.mean()
        error = report.statistics.standard_error.numpy()
        assert unpack(Packed(**described["error"])) == pytest.approx(error, rel=0.026)
    assert data["maps"][numbers[1]]["unit"] == (24.0, 24.0)
    assert data["maps"][numbers[1]]["box"] == (21, 21, 27, 27)
    assert data["maps"][numbers[1]]["period"] == (4, 4)
    assert data["maps"][numbers[2]]["box"] is None


def test_profiles_with_errors(small_page: NetworkPage) -> None:
    page, data = page_content([small_page], same_images=False)
    (network,) = page["networks"]
    # Of a unit of few pixels no phase profile can be made: that of the output is the only one.
    assert [cell["title"] for cell in network["profiles"]] == ["output, predicted class"]
    (profile,) = data["profiles"]
    report = small_page.maps["output"]
    assert isinstance(report, MapReport)
    assert report.profile is not None
    assert np.reshape(profile["values"], profile["shape"]) == pytest.approx(report.profile.numpy(), abs=1e-4)
    assert len(profile["errors"]) == 16


def test_differences_from_the_first(
    small_page: NetworkPage, renamed: Callable[[NetworkPage, str], NetworkPage]
) -> None:
    other = renamed(small_page, "other")
    found, _ = page_content([small_page, other], same_images=True)
    assert [entry["row"] for entry in found["differences"]] == ["stride 2", "stride 4", "output"]
    first, other_map = small_page.maps["output"], other.maps["output"]
    assert isinstance(first, MapReport)
    assert isinstance(other_map, MapReport)
    last = found["differences"][-1]
    sentence = compare_imbalance(other_map.statistics, first.statistics, 1, paired=True).sentence
    assert last["imbalance"] == sentence
    # The same images and the same network: nothing differs, and it is known to differ by nothing.
    assert last["imbalance"].startswith("no difference beyond the noise: 0")
    apart, _ = page_content([small_page, other], same_images=False)
    assert apart["differences"][-1]["imbalance"] != sentence
    assert last["contrast"].startswith("+0.0000 +- ")
    assert last["size"].startswith("+0 px (")


def test_missing_maps_have_no_difference(small_page: NetworkPage) -> None:
    other = replace(small_page, name="other", maps={"stride 2": Missing("it is dark")})
    page, _ = page_content([small_page, other], same_images=True)
    assert page["differences"] == []
    rows = dict(page["rows"])
    assert rows["stride 2"][1] == {"missing": "it is dark"}
    assert rows["output"][1] is None
