"""Parts of a page: what is divided out of other images, and failures in words."""

from __future__ import annotations

import pytest
import torch

from erfattr.cli._report_parts import attempt, held_out_contrasts
from erfattr.datasets.preprocessing import UnreadableImageError
from erfattr.datasets.sealed_files import ChangedFileError
from erfattr.metrics.statistics import StreamingStatistics
from erfattr.report.page.network import Missing


def test_a_pattern_of_all_images_is_gone_from_the_others() -> None:
    statistics = StreamingStatistics(groups=8)
    statistics.update(torch.tensor([[1.5, 0.5], [0.5, 1.5]]).repeat(8, 8, 8))
    before, after = held_out_contrasts(statistics.result(), (2, 2))
    assert (before.value, before.error) == (pytest.approx(0.5), pytest.approx(0.0, abs=1e-9))
    assert (after.value, after.error) == (pytest.approx(0.0, abs=1e-7), pytest.approx(0.0, abs=1e-7))


def test_a_pattern_of_one_half_alone_is_not() -> None:
    # Even groups have the pattern, odd ones its opposite: dividing the one out of the other makes it worse.
    statistics = StreamingStatistics(groups=8)
    pattern = torch.tensor([[1.5, 0.5], [0.5, 1.5]]).repeat(8, 8)
    statistics.update(torch.stack([pattern, 2 - pattern] * 4))
    before, after = held_out_contrasts(statistics.result(), (2, 2))
    assert before.value == pytest.approx(0.5)
    assert after.value == pytest.approx(0.8)  # 3 and 1/3, over their mean of 5/3


def _refuse(message: str) -> None:
    raise ValueError(message)


def test_failures_in_a_sentence() -> None:
    assert attempt(lambda: 3) == 3
    assert attempt(lambda: [][0]) == Missing("IndexError: list index out of range.")  # type: ignore[misc]
    # Only erfattr's own refusals lose the name of an argument.
    assert attempt(lambda: _refuse("layer: no such layer")) == Missing("ValueError: layer: no such layer.")
    few = StreamingStatistics(groups=2)
    few.update(torch.ones(2, 4, 4))
    found = attempt(lambda: held_out_contrasts(few.result(), (2, 2)))
    assert isinstance(found, Missing)
    assert found.why.startswith("expected ")
    assert found.why.endswith(".")


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ChangedFileError("changed"), UnreadableImageError("a.png", "it is text")]
)
def test_what_ends_a_run_is_no_missing_part(error: BaseException) -> None:
    def ended() -> None:
        raise error

    with pytest.raises(type(error)):
        attempt(ended)
