"""The rule for resized maps: which positions are read is asked of the operator itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from erfattr.receptive_field._operators.registry import Call, Results, rule
from erfattr.receptive_field._operators.taps import Taps, taps_from_mask
from erfattr.receptive_field._operators.windows import slide


@rule(pattern=r"_?upsample_.*")
def upsample(call: Call) -> Results | None:
    """Ask the operator itself which positions it reads, on one NaN per channel of a small image."""
    image, output = call.tensors[0], call.outputs[0]
    count = image.ndim - 2
    dims = range(2, image.ndim)
    align = bool(call.bound.get("align_corners"))

    def table(k: int, old: int, new: int) -> Taps:
        # Two wide across: of a map one wide, memory formats cannot be told apart, and antialiasing fails.
        poison = torch.where(torch.eye(old, dtype=torch.bool), torch.nan, 0.0)
        poison = poison.reshape([1, old] + [old if d == k else 1 for d in range(count)])
        poison = poison.expand([-1, -1] + [-1 if d == k else 2 for d in range(count)]).contiguous()
        values = dict(call.bound)
        values["self" if "self" in values else "input"] = poison
        values["output_size"] = [new if d == k else 2 for d in range(count)]
        for d, key in enumerate(("scales_d", "scales_h", "scales_w")[3 - count :]):
            if key in values and d != k:
                values[key] = None
        if call.bound.get("scale_factors"):
            values["output_size"] = None
            values["scale_factors"] = [
                call.bound["scale_factors"][d] if d == k else 1.0 for d in range(count)
            ]
        result = call.func(*(values[argument.name] for argument in call.func._schema.arguments))
        nan = result.isnan()[0].movedim(1 + k, 1).flatten(2).any(2)
        return taps_from_mask(nan.numpy())

    def plan(k: int, old: int, new: int) -> tuple[Taps, Fraction]:
        if align:
            return table(k, old, new), Fraction(max(old - 1, 1), max(new - 1, 1))
        if new % old:
            return table(k, old, new), Fraction(old, new)
        # Away from the borders every phase reads the same neighbours: those of a map of 9, in its middle.
        factor = new // old
        middle = table(k, 9, 9 * factor)[:, 4 * factor : 5 * factor]
        block, phase = np.divmod(np.arange(new), factor)
        taps = middle[:, phase]
        missing = taps == taps.min() if (taps < 0).any() else np.zeros_like(taps, dtype=bool)
        return np.where(missing, taps, taps - 4 + block), Fraction(1, factor)

    return [slide(call, image, output, plan, dims, table)]
