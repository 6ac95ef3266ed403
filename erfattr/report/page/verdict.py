"""The verdict on one network: four questions, an answer each in plain sentences, and a traffic light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from erfattr.report.map_report import WANTED, MapReport
from erfattr.report.map_sentences import Grid, grid_of, needed_in_words
from erfattr.report.page.network import Missing, NetworkPage, present

Light = Literal["good", "fair", "poor", "unknown"]

_LIGHTS: dict[Grid, Light] = {
    "none": "good",
    "not told": "unknown",
    "weak": "good",
    "there": "fair",
    "strong": "poor",
}
_ROUGH = 0.3
"""Relative error of L1 up to which the images are too few, but say something."""


@dataclass(frozen=True)
class Finding:
    """One answer of the verdict.

    Attributes:
        question: What was asked.
        light: How good the answer is.
        answer: In plain sentences.
    """

    question: str
    light: Light
    answer: str


def verdict(network: NetworkPage) -> list[Finding]:
    """Answer the four questions of a reader: images, grid, centre, what to do."""
    grid = _grid(network)
    images = _images(network)
    return [images, grid, _centre(network), _advice(network, images, grid)]


def judged(network: NetworkPage) -> MapReport | None:
    """Return the map that is judged: of the output, or else of the deepest unit."""
    return network.output or network.deepest


def _images(network: NetworkPage) -> Finding:
    question = "Are there enough images?"
    report = judged(network)
    if report is None:
        return Finding(question, "unknown", "No map could be measured.")
    there = report.statistics.n_images
    of_grid, of_pixels = report.images_needed.get("L1"), report.images_needed["pixels"]
    if not report.corrected:
        light: Light = "poor"
        words = f"{there} images are too few to tell signal from noise"
    elif of_grid is None:
        light, words = "unknown", f"Over {there} images no imbalance shows beyond the noise"
    elif of_grid > there:
        light = "fair" if of_grid * (WANTED / _ROUGH) ** 2 <= there else "poor"
        words = f"{there} images are too few to say how strong the grid is"
    elif of_pixels is None or of_pixels > there:
        light = "fair"
        words = f"{there} images are enough to judge the grid, and too few to read single pixels"
    else:
        light, words = "good", f"{there} images are enough"
    answer = (
        f"{words}. {report.title}: to know it to {100 * WANTED:g} %, "
        f"{needed_in_words(report, network.seconds_per_image)}."
    )
    if report.dependence:
        answer += f" But {report.dependence}."
        light = "fair" if light == "good" else light
    return Finding(question, light, answer)


def _grid(network: NetworkPage) -> Finding:
    question = "Is there a grid, and how strong is it?"
    report = judged(network)
    if report is None:
        return Finding(question, "unknown", "No map could be measured.")
    if report.period is None:
        why = "no period of several pixels is known that it reaches in every phase"
        return Finding(question, "unknown", f"{report.title}: it cannot be folded into phases, since {why}.")
    grid = grid_of(report)
    if grid is None or report.phase is None:
        return Finding(
            question,
            "unknown",
            f"{report.title}: {report.statistics.n_images} images are too few to tell a grid from noise.",
        )
    kind, words, period = grid
    light = _LIGHTS[kind]
    value, error = report.phase.corrected_contrast, report.phase.contrast_standard_error
    said = (
        f"phase contrast {100 * value:.1f} +- {100 * error:.1f} % of the mean at period {period}, "
        "without the noise"
    )
    answer = f"{words}. {report.title}: {said}."
    if report.weak is not None:
        answer += f" {_capital(report.weak.sentence)}."
    return Finding(question, light, answer)


def _centre(network: NetworkPage) -> Finding:
    question = "Where is the field centred, and where is the image's centre?"
    report = network.deepest
    if report is None or report.receptive_field is None or report.source.unit is None:
        why = network.fields.why if isinstance(network.fields, Missing) else "no unit of a layer was mapped"
        return Finding(question, "unknown", f"It is not known: {why}.")
    field = report.receptive_field
    image = tuple((length - 1) / 2 for length in field.input_size)
    height, width = field.output_size
    # The middle unit of a map with an even side lies half a step off: the units as a whole are compared.
    first, last = field.center((0, 0)), field.center((height - 1, width - 1))
    middle = tuple((a + b) / 2 for a, b in zip(first, last, strict=True))
    y, x = field.center(report.source.unit)
    off, step = _distance(middle, image), max(field.stride)
    found, errors = report.sizes.centroid, report.centroid_error
    known = "" if errors is None else f" +- ({errors[0]:.1f}, {errors[1]:.1f})"
    answer = (
        f"Unit {report.source.unit} of {report.source.layer} is centred on pixel ({y:g}, {x:g}), and its "
        f"mass on ({found[0]:.1f}, {found[1]:.1f}){known}. All units together lie about "
        f"({middle[0]:g}, {middle[1]:g}), the image's centre is ({image[0]:g}, {image[1]:g})"
    )
    if off <= 1:
        light: Light = "good"
        answer += ": they agree."
    else:
        light = "fair" if off <= step / 4 else "poor"
        answer += (
            f": {off:g} pixels apart, {off / step:.2g} strides. What is located by units is off by that."
        )
    shift = _distance(found, (y, x))
    if shift > max(step / 4, 2 * max(errors or (0.0,))):
        answer += f" The mass itself lies {shift:.1f} pixels from the unit's centre."
        light = "fair" if light == "good" else light
    return Finding(question, light, answer)


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(first - second) for first, second in zip(a, b, strict=True))


def _advice(network: NetworkPage, images: Finding, grid: Finding) -> Finding:
    question = "What to do about it?"
    said, light = [], grid.light
    if images.light in ("poor", "unknown"):
        said.append("Measure over more images first: what is below rests on few.")
        light = images.light
    if grid.light in ("fair", "poor"):
        said.append("Divide the grid out of saliency maps before you read single pixels: erfattr debias.")
        diagnosis = present(network.diagnosis)
        if diagnosis is not None:
            said.append(f"By forecast {diagnosis.remedy_sentence()}.")
        elif isinstance(network.diagnosis, Missing):
            said.append("What a change of the network would do cannot be forecast here.")
    elif grid.light == "good":
        said.append("Nothing has to be mended for the grid's sake.")
    else:
        said.append("The strength of the grid is not known, so no remedy is named.")
    return Finding(question, light, " ".join(said))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
