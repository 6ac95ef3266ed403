"""The verdict: which light, and what is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from erfattr.metrics.significance import PhaseEstimate
from erfattr.report.map_report import MapReport
from erfattr.report.page.network import Missing, NetworkPage
from erfattr.report.page.verdict import judged, verdict


def with_output(page: NetworkPage, **changes: object) -> NetworkPage:
    """Return the page with changes to the map of the output, which is judged."""
    report = page.maps["output"]
    assert isinstance(report, MapReport)
    return replace(page, maps={**page.maps, "output": replace(report, **changes)})  # type: ignore[arg-type]


def phase(page: NetworkPage, contrast: float, error: float) -> PhaseEstimate:
    report = page.maps["output"]
    assert isinstance(report, MapReport)
    assert report.phase is not None
    return replace(report.phase, corrected_contrast=contrast, contrast_standard_error=error)


def test_four_questions_in_order(small_page: NetworkPage) -> None:
    findings = verdict(small_page)
    assert [finding.question.split()[0] for finding in findings] == ["Are", "Is", "Where", "What"]
    assert judged(small_page) is small_page.maps["output"]


@pytest.mark.parametrize(
    ("contrast", "error", "light", "words"),
    [
        (0.010, 0.001, "good", "There is a grid, and it is weak."),
        (0.100, 0.010, "fair", "There is a grid."),
        (0.300, 0.010, "poor", "There is a strong grid."),
        (0.001, 0.001, "good", "No grid beyond the noise."),
        (-0.02, 0.020, "good", "No grid beyond the noise."),
        (0.100, 0.060, "unknown", "A grid cannot be told from the noise yet."),
    ],
)
def test_grid(small_page: NetworkPage, contrast: float, error: float, light: str, words: str) -> None:
    finding = verdict(with_output(small_page, phase=phase(small_page, contrast, error)))[1]
    assert finding.light == light
    assert finding.answer.startswith(words)
    assert f"{100 * contrast:.1f} +- {100 * error:.1f} % of the mean at period 4" in finding.answer


@pytest.mark.parametrize(
    ("pixels", "grid", "light", "words"),
    [
        (12, 12, "good", "12 images are enough."),
        (500, 12, "fair", "12 images are enough to judge the grid, and too few to read single pixels."),
        (500, 100, "fair", "12 images are too few to say how strong the grid is."),  # off by 29 %
        (500, 120, "poor", "12 images are too few to say how strong the grid is."),
        (500, None, "unknown", "Over 12 images no imbalance shows beyond the noise."),
    ],
)
def test_images(small_page: NetworkPage, pixels: int, grid: int | None, light: str, words: str) -> None:
    changed = with_output(small_page, images_needed={"pixels": pixels, "L1": grid}, dependence="")
    finding = verdict(changed)[0]
    assert finding.light == light
    assert finding.answer.startswith(words)


def test_too_few_images_and_images_that_depend(small_page: NetworkPage) -> None:
    few = with_output(small_page, images_needed={"pixels": None}, corrected={})
    assert verdict(few)[0].light == "poor"
    enough = with_output(small_page, images_needed={"pixels": 1, "L1": 1}, dependence="images are alike")
    assert verdict(enough)[0].light == "fair"
    assert verdict(enough)[0].answer.endswith("But images are alike.")


def test_centre_by_hand(small_page: NetworkPage) -> None:
    # Two 3x3 kernels with stride 2 and padding 1 put unit (i, j) on pixel (4 i, 4 j): 12 units about 22.
    finding = verdict(small_page)[2]
    assert "Unit (6, 6) of second is centred on pixel (24, 24)" in finding.answer
    assert "All units together lie about (22, 22), the image's centre is (23.5, 23.5)" in finding.answer
    assert "1.5 pixels apart, 0.38 strides" in finding.answer
    assert finding.light == "poor"


def test_mass_that_lies_off_its_unit_is_said(small_page: NetworkPage) -> None:
    report = small_page.maps["stride 4"]
    assert isinstance(report, MapReport)
    moved = replace(report, sizes=replace(report.sizes, centroid=(24.0, 27.0)), centroid_error=(0.1, 0.1))
    finding = verdict(replace(small_page, maps={"stride 4": moved}))[2]
    assert finding.answer.endswith(" The mass itself lies 3.0 pixels from the unit's centre.")
    near = replace(moved, centroid_error=(0.1, 2.0))  # 3 pixels off, and known to 4
    assert "The mass itself" not in verdict(replace(small_page, maps={"stride 4": near}))[2].answer


def test_advice_follows_the_grid(small_page: NetworkPage) -> None:
    known = {"images_needed": {"pixels": 1, "L1": 1}, "dependence": ""}
    flat = with_output(small_page, phase=phase(small_page, 0.0, 0.001), **known)
    assert verdict(flat)[3].answer == "Nothing has to be mended for the grid's sake."
    strong = with_output(small_page, phase=phase(small_page, 0.3, 0.01), **known)
    answer = verdict(strong)[3].answer
    assert answer.startswith("Divide the grid out of saliency maps")
    assert "By forecast the strongest remedy is" in answer
    refused = replace(strong, diagnosis=Missing("attention"))
    assert "cannot be forecast here" in verdict(refused)[3].answer


def test_nothing_is_known_of_nothing() -> None:
    empty = NetworkPage("none", {"output": Missing("it is dark")}, fields=Missing("it is dark"))
    findings = verdict(empty)
    assert [finding.light for finding in findings] == ["unknown"] * 4
    assert "it is dark" in findings[2].answer
