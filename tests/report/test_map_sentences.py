"""What a person reads of one map."""

from __future__ import annotations

import pytest
import torch

from erfattr.metrics.statistics import MapSource, StreamingStatistics
from erfattr.report.map_report import MapReport, analyse_map
from erfattr.report.map_sentences import _duration, map_lines, needed_in_words


def report_of(images: int) -> MapReport:
    generator = torch.Generator().manual_seed(0)
    pattern = torch.tensor([[1.2, 0.8], [1.0, 1.0]], dtype=torch.float64).repeat(16, 16)
    statistics = StreamingStatistics()
    noise = torch.rand(images, 32, 32, generator=generator, dtype=torch.float64)
    statistics.update(pattern * (0.5 + noise))
    source = MapSource("output", None, None, None, "predicted", "relu", (32, 32))
    return analyse_map(statistics.result(source), period=(2, 2))


def test_facts_in_order() -> None:
    title, *lines = map_lines(report_of(64))
    assert title == "output, predicted class"
    begins = [line.split(":")[0] for line in lines]
    assert begins[0].startswith("1 of 4 phases receive significantly less than the mean")
    assert begins[1:] == [
        "Gaussian fit",
        "imbalance of R / mean(R)",
        "without the noise",
        "without the noise",
        "phase contrast at period 2",
        "pixels significantly below half of their neighbourhood",
        "standard error of a pixel, median",
        "to know it to 10 %",
    ]


def test_images_that_are_still_needed() -> None:
    report = report_of(4)
    needed = report.images_needed
    assert needed["pixels"] is not None
    assert needed["pixels"] > 4
    words = needed_in_words(report, 2.0)
    more = needed["pixels"] - 4
    assert words.startswith(f"about {more} more images ({_duration(2.0 * more)}) for the median pixel")
    assert needed_in_words(report).startswith(f"about {more} more images for the median pixel")
    assert needed_in_words(report_of(256)).startswith("256 images are enough for the median pixel")


def test_images_that_no_number_can_be_told_of() -> None:
    assert needed_in_words(report_of(1)) == "no number of images can be told for the median pixel"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_a_time_is_said_as_a_person_does(seconds: float, words: str) -> None:
    assert _duration(seconds) == words
