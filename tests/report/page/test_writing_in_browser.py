"""The page in a real browser: it asks nobody for anything, complains of nothing, and moves as it says.

Needs Playwright's Python package and a chromium on the path; the browser is Debian's own, none is downloaded.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps

from erfattr.report.map_report import MapReport
from erfattr.report.page.network import NetworkPage
from erfattr.report.page.writing import write_report
from tests.report.page.conftest import SIZE
from tests.report.page.test_writing import HOSTILE, hostile_page

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the page is tried in a browser by Playwright: pip install playwright"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# What the mouse and the keyboard do arrives in the next frame.
_FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
_PICTURES = (
    """() => [...document.querySelectorAll('#maps .map > canvas')].map((canvas) => canvas.toDataURL())"""
)
# Read from a copy: a browser has something to say about canvases that are read again and again.
_COLOR = """([canvas, y, x]) => {
  const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
  const pixel = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  pixel.drawImage(canvas, ...at, 1, 1, 0, 0, 1, 1);
  return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A chromium."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"the page is tried in a browser, and none is on the path: {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


class Opened:
    """A page that is open, with all that it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.tab = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}).new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.address = path.as_uri()
        self.tab.goto(self.address)
        self.tab.wait_for_selector("body[data-ready]")

    def settled(self) -> None:
        self.tab.evaluate(_FRAME)

    def zoom(self) -> float:
        return float(self.tab.evaluate("document.body.dataset.zoom"))

    def pictures(self) -> list[str]:
        self.settled()
        found: list[str] = self.tab.evaluate(_PICTURES)
        return found

    def map(self, number: int) -> Any:
        return self.tab.locator("#maps .map > canvas").nth(number)

    def at(self, number: int, y: float, x: float) -> tuple[float, float]:
        """Return the place in the window of a place of a map's canvas, both as shares."""
        self.map(number).scroll_into_view_if_needed()
        box = self.map(number).bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def readout(self, number: int) -> str:
        text: str = self.tab.locator("#maps .readout").nth(number).inner_text()
        return text


@pytest.fixture(scope="module")
def written(small_page: NetworkPage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("page") / "report.html", small_page)


@pytest.fixture
def opened(browser: Any, written: Path) -> Iterator[Opened]:
    page = Opened(browser, written)
    yield page
    page.tab.context.close()
    # Whatever was done: one file was read, and nothing was complained of.
    assert page.requests == [page.address]
    assert page.complaints == []


def values(page: NetworkPage, row: str) -> np.ndarray[Any, Any]:
    """Return a map in units of its mean."""
    report = page.maps[row]
    assert isinstance(report, MapReport)
    return (report.statistics.mean / report.statistics.mean.mean()).numpy()


def test_hover_reads_the_pixel_in_all_maps(opened: Opened, small_page: NetworkPage) -> None:
    # Pixel (25, 30) of 48 lies from 30 / 48 to 31 / 48 of the width.
    opened.tab.mouse.move(*opened.at(2, 25.5 / SIZE, 30.5 / SIZE))
    opened.settled()
    report = small_page.maps["output"]
    assert isinstance(report, MapReport)
    found = re.fullmatch(r"\(y 25, x 30\): (\S+) \u00b1 (\S+) x mean, phase \(1, 2\)", opened.readout(2))
    assert found is not None
    error = (report.statistics.standard_error / report.statistics.mean.mean()).numpy()
    assert float(found[1]) == pytest.approx(values(small_page, "output")[25, 30], rel=6e-3)
    assert float(found[2]) == pytest.approx(error[25, 30], rel=0.03)
    assert opened.readout(1).startswith("(y 25, x 30): ")
    assert opened.readout(1).endswith(", phase (1, 2)")
    assert opened.readout(0).endswith(", phase (1, 0)")  # its stride is 2
    opened.tab.mouse.move(5, 5)
    opened.settled()
    assert opened.readout(2).strip() == ""


def test_zoom_by_button_wheel_and_key_moves_all_maps(opened: Opened) -> None:
    before = opened.pictures()
    assert opened.zoom() == 1
    opened.tab.click("#closer")
    nearer = opened.pictures()
    assert opened.zoom() == 1.5
    assert all(a != b for a, b in zip(before, nearer, strict=True))
    opened.tab.click("#whole")
    assert opened.pictures() == before
    # The wheel belongs to the page until a map has been clicked.
    opened.tab.mouse.move(*opened.at(1, 0.5, 0.5))
    opened.tab.mouse.wheel(0, -300)
    opened.settled()
    assert opened.zoom() == 1
    opened.tab.mouse.click(*opened.at(1, 0.5, 0.5))
    opened.tab.mouse.wheel(0, -300)
    opened.tab.wait_for_function("document.body.dataset.zoom > 2.7")
    opened.tab.keyboard.press("-")
    opened.settled()
    assert opened.zoom() == pytest.approx(np.e / 1.5, rel=1e-3)
    opened.tab.keyboard.press("0")
    opened.settled()
    assert opened.zoom() == 1


def test_the_wheel_keeps_the_pixel_under_the_mouse(opened: Opened) -> None:
    place = opened.at(1, 10.5 / SIZE, 37.5 / SIZE)
    opened.tab.mouse.click(*place)
    opened.tab.mouse.wheel(0, -300)
    opened.tab.wait_for_function("document.body.dataset.zoom > 2.7")
    opened.tab.mouse.move(place[0] + 1, place[1])
    opened.settled()
    assert opened.readout(1).startswith("(y 10, x 37)")


def test_zoom_ends_at_single_pixels_of_the_right_colour(opened: Opened, small_page: NetworkPage) -> None:
    for box in ("#boxes", "#contours"):  # nothing is to be drawn over the pixels
        opened.tab.uncheck(box)
    for _ in range(9):
        opened.tab.click("#closer")
    opened.settled()
    # Eight pixels are left of 48, from 20 to 27: the second one begins at an eighth of the canvas.
    assert opened.zoom() == SIZE / 8
    found = values(small_page, "output")
    end = opened.tab.evaluate("() => JSON.parse(document.getElementById('page-data').textContent)")["maps"][2]
    for y, x in ((20, 20), (21, 25), (27, 22)):
        place = min(1.0, found[y, x] / end["linear"][1])
        expected = np.array(colormaps["magma"](round(255 * place))[:3]) * 255
        shown = opened.tab.evaluate(
            _COLOR, [opened.map(2).element_handle(), (y - 20 + 0.5) / 8, (x - 20 + 0.5) / 8]
        )
        assert shown == pytest.approx(expected, abs=4)


def test_drag_moves_what_is_seen(opened: Opened) -> None:
    for _ in range(9):
        opened.tab.click("#closer")
    opened.tab.mouse.move(*opened.at(0, 0.5, 0.5))
    opened.settled()
    assert opened.readout(0).startswith("(y 24, x 24)")
    opened.tab.mouse.down()
    opened.tab.mouse.move(*opened.at(0, 0.5, 0.25))  # two of eight pixels to the left: the middle is two on
    opened.tab.mouse.up()
    opened.tab.mouse.move(*opened.at(0, 0.51, 0.51))
    opened.settled()
    assert opened.readout(0).startswith("(y 24, x 26)")


def test_keyboard_goes_from_pixel_to_pixel(opened: Opened) -> None:
    opened.map(1).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):  # the first one marks the middle
        opened.tab.keyboard.press(key)
    opened.settled()
    assert opened.readout(1).startswith("(y 25, x 25)")
    assert opened.readout(0).startswith("(y 25, x 25)")
    opened.tab.keyboard.press("Escape")
    assert opened.readout(1).strip() == ""


def test_zoom_to_a_map_shows_its_mass(opened: Opened) -> None:
    opened.tab.locator("#maps [data-show]").first.click()
    opened.settled()
    assert opened.zoom() > 2
    opened.tab.mouse.move(*opened.at(0, 0.5, 0.5))
    opened.settled()
    found = re.match(r"\(y (\d+), x (\d+)\)", opened.readout(0))
    assert found is not None  # unit (12, 12) of stride 2 is centred on pixel 24
    assert [int(found[1]), int(found[2])] == pytest.approx([24, 24], abs=1)


def test_scale_shared_or_own_linear_or_logarithmic(opened: Opened) -> None:
    def highs() -> list[str]:
        found: list[str] = opened.tab.locator("#maps .high").all_inner_texts()
        return found

    own, pictures = highs(), opened.pictures()
    assert len(set(own)) == 3
    opened.tab.check("#shared")
    assert len(set(highs())) == 1
    assert opened.pictures() != pictures
    opened.tab.uncheck("#shared")
    opened.tab.check("#logarithmic")
    assert not any(high.startswith("\u2265") for high in highs())
    assert float(opened.tab.locator("#maps .low").first.inner_text()) > 0
    opened.tab.uncheck("#logarithmic")
    assert (highs(), opened.pictures()) == (own, pictures)


@pytest.mark.parametrize("box", ["#boxes", "#contours"])
def test_what_is_drawn_over_a_map_can_be_taken_away(opened: Opened, box: str) -> None:
    before = opened.pictures()
    opened.tab.uncheck(box)
    assert opened.pictures()[1] != before[1]


def test_profile_reads_its_phases(opened: Opened, small_page: NetworkPage) -> None:
    report = small_page.maps["output"]
    assert isinstance(report, MapReport)
    assert report.profile is not None
    profile = opened.tab.locator(".profile > canvas").first
    profile.scroll_into_view_if_needed()
    box = profile.bounding_box()
    opened.tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.1 * box["height"])
    said = opened.tab.locator(".profile .readout").first.inner_text()
    found = re.fullmatch(r"phase \(0, 2\): (\S+) \u00b1 \S+", said)
    assert found is not None
    assert float(found[1]) == pytest.approx(float(report.profile[0, 2]), abs=1e-3)


def test_slider_shows_before_and_after(opened: Opened) -> None:
    canvas = opened.tab.locator(".compare canvas")
    slider = opened.tab.locator(".compare input")
    seen = {}
    for value in ("0", "50", "100"):
        slider.fill(value)
        seen[value] = canvas.evaluate("(canvas) => canvas.toDataURL()")
    assert len(set(seen.values())) == 3
    # Right of the middle it is as it is without the grid.
    slider.fill("0")
    there = opened.tab.evaluate(_COLOR, [canvas.element_handle(), 0.3, 0.8])
    slider.fill("50")
    assert opened.tab.evaluate(_COLOR, [canvas.element_handle(), 0.3, 0.8]) == there


def test_tables_sort_by_numbers(opened: Opened) -> None:
    opened.tab.locator("#layers details").evaluate("(details) => { details.open = true; }")
    head = opened.tab.locator("#layers th", has_text="field")
    column = "#layers tbody td:nth-child(3)"
    assert opened.tab.locator(column).all_inner_texts() == ["3 x 3", "3 x 3", "7 x 7"]
    head.locator("button").click()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert opened.tab.locator(column).all_inner_texts() == ["7 x 7", "3 x 3", "3 x 3"]


def test_arrays_can_be_downloaded(opened: Opened, small_page: NetworkPage, tmp_path: Path) -> None:
    report = small_page.maps["output"]
    assert isinstance(report, MapReport)
    for what, expected, off in (
        ("values", report.statistics.mean, 1.01e-3),
        ("error", report.statistics.standard_error, 0.026),
    ):
        with opened.tab.expect_download() as download:
            opened.tab.locator(f"#maps [data-file={what}]").nth(2).click()
        download.value.save_as(tmp_path / "found.npy")
        assert download.value.suggested_filename == f"small_output_predicted_class_{what}.npy"
        assert np.load(tmp_path / "found.npy") == pytest.approx(expected.numpy(), rel=off)
    with opened.tab.expect_download() as download:
        opened.tab.click("#numbers")
    download.value.save_as(tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert numbers["networks"][0]["maps"]["output"]["n_images"] == 12
    # What a browser calls a download of a page's own bytes is no request to anywhere.
    opened.requests[:] = [url for url in opened.requests if not url.startswith("blob:")]


def test_narrow_window_and_dark_mode(browser: Any, written: Path) -> None:
    page = Opened(browser, written, viewport={"width": 390, "height": 800}, color_scheme="dark")
    assert page.tab.evaluate("document.documentElement.scrollWidth") == 390
    assert page.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 19, 22)"
    assert page.complaints == []
    page.tab.context.close()


def test_everything_has_words(opened: Opened) -> None:
    for kind in ("canvas:not([aria-hidden])", "svg", "input[type=range]", "[role=img]"):
        for element in opened.tab.locator(kind).all():
            assert element.get_attribute("aria-label"), element.evaluate("(element) => element.outerHTML")
    for image in opened.tab.locator("img").all():
        assert image.get_attribute("alt")
    for box in opened.tab.locator("input[type=checkbox]").all():
        assert box.evaluate("(box) => box.labels[0].textContent.trim()")
    assert opened.tab.locator("h1").count() == 1


def test_hostile_names_stay_text(browser: Any, tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", hostile_page(), title=HOSTILE, record={HOSTILE: HOSTILE})
    page = Opened(browser, path)
    page.tab.wait_for_timeout(100)  # time for a handler that must not be there
    assert page.complaints == []
    assert page.requests == [page.address]
    assert page.tab.locator("h1").inner_text().split() == HOSTILE.split()
    assert page.tab.locator("img[onerror]").count() == 0
    assert page.tab.locator("script").count() == 2
    page.tab.context.close()


def test_policy_forbids_requests(browser: Any, written: Path) -> None:
    page = Opened(browser, written)
    refused = page.tab.evaluate(
        """() => new Promise((done) => {
          document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective));
          new Image().src = 'http://127.0.0.1:9/pixel.png';
        })"""
    )
    assert refused == "img-src"
    page.tab.context.close()


def test_two_networks_move_together(
    browser: Any,
    small_page: NetworkPage,
    renamed: Callable[[NetworkPage, str], NetworkPage],
    tmp_path: Path,
) -> None:
    pages = [small_page, renamed(small_page, "other")]
    page = Opened(browser, write_report(tmp_path / "report.html", pages))
    assert page.tab.locator("#maps .map").count() == 6
    page.tab.mouse.move(*page.at(0, 0.5, 0.5))
    page.settled()
    assert page.readout(0) == page.readout(1)
    page.tab.click("#closer")
    assert page.complaints == []
    page.tab.context.close()
