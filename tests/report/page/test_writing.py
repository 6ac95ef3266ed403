"""The page as a file: whole, alone, and text where text came in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from erfattr.report.map_report import MapReport
from erfattr.report.page.network import Missing, NetworkPage, SaliencyBeforeAfter, SaliencyExample
from erfattr.report.page.writing import write_report
from tests.report.page.conftest import measured

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\" & {{ 7 * 7 }} \u2028"


class Tags(HTMLParser):
    """All tags of a page, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data


def tags_of(path: Path) -> Tags:
    found = Tags()
    found.feed(path.read_text(encoding="utf-8"))
    return found


def hostile_page() -> NetworkPage:
    """Return a page whose every name is hostile."""
    layers = HOSTILE.replace(".", ""), "second" + HOSTILE.replace(".", "")
    page = measured(HOSTILE, layers)
    example = SaliencyExample(HOSTILE, torch.rand(3, 8, 8), torch.rand(8, 8), torch.rand(8, 8))
    return NetworkPage(
        HOSTILE,
        {**page.maps, HOSTILE: Missing(HOSTILE)},
        HOSTILE,
        page.fields,
        Missing(HOSTILE),
        [HOSTILE],
        SaliencyBeforeAfter((example,), HOSTILE),
        {"files": [HOSTILE]},
    )


def test_file_stands_alone(small_page: NetworkPage, tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "report.html", small_page)
    text = path.read_text(encoding="utf-8")
    # Nothing that a browser would fetch: the only addresses are inside the file.
    for _, attributes in tags_of(path).tags:
        for name in ("src", "href", "srcset", "action", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "data:")), address
    assert "url(" not in text
    assert "@import" not in text
    policies = [attributes["content"] for tag, attributes in tags_of(path).tags if "http-equiv" in attributes]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; ")
    assert "unsafe" not in str(policies[0])
    assert path.stat().st_size < 150_000


def test_words_can_be_read_without_the_script(small_page: NetworkPage, tmp_path: Path) -> None:
    text = write_report(tmp_path / "report.html", small_page, record={"seed": 7}).read_text(encoding="utf-8")
    without = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for words in ("Are there enough images?", "second, unit (6, 6)", "halo 32 x 32 pixels", "kernel padding"):
        assert words in without
    assert "&#34;seed&#34;: 7" in without
    assert "0.2000 +- 0.0100 before, 0.0500 +- 0.0200 after" in without


def test_what_is_missing_says_why(small_page: NetworkPage, tmp_path: Path) -> None:
    page = NetworkPage("none", {"output": Missing("it is dark.")}, fields=Missing("no layers."))
    text = write_report(tmp_path / "report.html", page).read_text(encoding="utf-8")
    assert "Not computed: it is dark." in text
    assert text.count("Not computed: no layers.") == 2  # the chart and the table
    assert text.count("Not computed: it was not asked for.") == 3


def test_rows_keep_their_order_and_numbers_that_are_none_break_nothing(
    small_page: NetworkPage, tmp_path: Path
) -> None:
    report = small_page.maps["output"]
    assert isinstance(report, MapReport)
    assert report.phase is not None
    unknown = torch.full_like(report.phase.standard_error, torch.nan)
    changed = replace(
        report,
        phase=replace(report.phase, standard_error=unknown),
        statistics=replace(
            report.statistics, standard_error=torch.full_like(report.statistics.mean, torch.inf)
        ),
    )
    page = replace(small_page, maps={"z": changed, "a": report})
    path = write_report(tmp_path / "report.html", page, record={"seed": float("nan")})
    data = json.loads(tags_of(path).scripts[0], parse_constant=pytest.fail)
    assert list(data["numbers"][0]["maps"]) == ["z", "a"]
    assert data["profiles"][0]["errors"] == [None] * 16
    assert data["maps"][0]["error"] is None


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", hostile_page(), title=HOSTILE, record={HOSTILE: HOSTILE})
    found = tags_of(path)
    plain = tags_of(write_report(tmp_path / "plain.html", measured("small", ("first", "second"))))
    kinds = {tag for tag, _ in plain.tags}
    assert {tag for tag, _ in found.tags} <= kinds
    assert len(found.scripts) == 2
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    data = json.loads(found.scripts[0])
    assert data["numbers"][0]["name"] == HOSTILE
    assert data["record"][HOSTILE] == HOSTILE
    assert "49" not in path.read_text(encoding="utf-8").partition("</title>")[0]  # no template in a name


def test_networks_side_by_side(
    small_page: NetworkPage, renamed: Callable[[NetworkPage, str], NetworkPage], tmp_path: Path
) -> None:
    pages = [small_page, renamed(small_page, "other")]
    text = write_report(tmp_path / "report.html", pages, same_images=True).read_text(encoding="utf-8")
    assert "<h1>small, other</h1>" in text
    assert 'id="differences"' in text
    assert 'data-columns="2"' in text


def test_nothing_is_overwritten_in_silence(small_page: NetworkPage, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"path: .* is there already"):
        write_report(path, small_page)
    assert path.read_text() == "mine"
    write_report(path, small_page, overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(ValueError, match="path: expected a file, got the folder"):
        write_report(tmp_path, small_page, overwrite=True)


def test_bad_networks_are_refused(small_page: NetworkPage, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="networks: expected networks of different names, got none"):
        write_report(tmp_path / "a.html", [])
    with pytest.raises(ValueError, match="networks: expected networks of different names, got small, small"):
        write_report(tmp_path / "a.html", [small_page, small_page])
    with pytest.raises(TypeError, match="networks: expected NetworkPage, got"):
        write_report(tmp_path / "a.html", [3])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


def test_without_jinja_one_line_says_what_to_install() -> None:
    code = """
import sys
sys.modules["jinja2"] = None
import erfattr
try:
    erfattr.write_report("report.html", erfattr.NetworkPage("a", {}))
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "write_report needs jinja2: pip install 'erfattr[report]'\n"
