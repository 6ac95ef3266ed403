"""Maps inside a page: what comes out again, and how far off it is."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
import torch

from erfattr.report.page.packing import ERROR_STEP, MAP_STEP, Packed, pack, unpack


def test_bytes_by_hand() -> None:
    # exp(0) and exp(3) are 300 steps of 0.01 apart: codes 1 and 301 = 45 + 256, low bytes first.
    packed = pack(torch.tensor([[0.0, 1.0], [np.exp(3.0), 0.0]], dtype=torch.float64), 0.01)
    assert (packed.shape, packed.origin, packed.step) == ((2, 2), 0.0, 0.01)
    assert list(zlib.decompress(base64.b64decode(packed.data))) == [0, 1, 45, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("step", [MAP_STEP, ERROR_STEP])
def test_no_value_is_off_by_more_than_half_a_step(step: float) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 60, generator=generator, dtype=torch.float64).mul(8).exp()
    values[::3, ::2] = 0
    found = unpack(pack(values, step))
    positive = values.numpy() > 0
    assert (found[~positive] == 0).all()
    assert np.abs(np.log(found[positive] / values.numpy()[positive])).max() <= step / 2 + 1e-9


def test_what_lies_beyond_16_bits_below_the_peak_is_zero() -> None:
    values = torch.tensor([[1.0, np.exp(-65_534 * 0.002 - 1), np.exp(-65_533 * 0.002)]], dtype=torch.float64)
    assert unpack(pack(values)).tolist() == [[pytest.approx(1), 0.0, pytest.approx(float(values[0, 2]))]]


def test_zeros() -> None:
    assert unpack(pack(torch.zeros(2, 3))).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_other_values_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="values: "):
        pack(torch.tensor([[1.0, bad]]))


def test_fields_are_what_the_script_reads() -> None:
    assert Packed._fields == ("shape", "origin", "step", "data")
    assert set(pack(torch.ones(1, 1)).plain()) == set(Packed._fields)


def test_a_map_of_noise_leaves_room_for_a_page_of_eight() -> None:
    # The worst there is: every pixel its own. A page of 1.5 MB holds 8 of them with their errors.
    generator = torch.Generator().manual_seed(0)
    values, errors = torch.empty(2, 224, 224).exponential_(generator=generator)
    assert len(pack(values).data) + len(pack(errors, ERROR_STEP).data) < 1_500_000 / 8
