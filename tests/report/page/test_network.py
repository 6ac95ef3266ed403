"""What a page is told of a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from erfattr.report.map_report import MapReport
from erfattr.report.page.network import Missing, NetworkPage, present


def test_maps_that_there_are(small_page: NetworkPage) -> None:
    assert list(small_page.measured) == ["stride 2", "stride 4", "output"]
    assert small_page.deepest is small_page.maps["stride 4"]
    assert small_page.output is small_page.maps["output"]


def test_maps_that_there_are_not(small_page: NetworkPage) -> None:
    page = NetworkPage("none", {"stride 2": Missing("it is dark")})
    assert (page.measured, page.deepest, page.output) == ({}, None, None)
    only = NetworkPage("one", {"output": small_page.maps["output"]})
    assert only.deepest is None


def test_present() -> None:
    assert present(Missing("no")) is None
    assert present(None) is None
    assert present([1]) == [1]


def test_negative_maps_are_refused(small_page: NetworkPage) -> None:
    report = small_page.maps["output"]
    assert isinstance(report, MapReport)
    signed = replace(report, statistics=replace(report.statistics, mean=-report.statistics.mean))
    with pytest.raises(ValueError, match="maps: expected maps without negative values, got some in 'output'"):
        NetworkPage("signed", {"output": signed})


@pytest.mark.parametrize(
    ("name", "maps", "kind", "message"),
    [
        ("", {}, ValueError, "name: expected what the network is called"),
        ("a", {"stride 2": 3}, TypeError, "maps: expected a MapReport or Missing for 'stride 2'"),
    ],
)
def test_errors(name: str, maps: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        NetworkPage(name, maps)
