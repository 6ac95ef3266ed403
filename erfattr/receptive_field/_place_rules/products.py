"""Rules for matrix products and attention."""

from __future__ import annotations

from torch import Tensor

from erfattr.receptive_field._place_rules.registry import Found, Placing, place_rule
from erfattr.receptive_field._places import Line, Places, contracted, joined, made_of, nowhere
from erfattr.receptive_field._rules import FACTORS

_FACTORS = {**FACTORS, "mv": ("self", "vec")}


def is_attention(call: Placing) -> bool:
    """Whether the call multiplies what depends on the image by what depends on the image too."""
    if "attention" in call.name or call.name == "_transformer_encoder_layer_fwd":
        return True
    if call.name not in _FACTORS:
        return False
    return all(call.known(call.bound[key]) is not None for key in _FACTORS[call.name])


@place_rule(*_FACTORS)
def product(call: Placing) -> Found:
    """A matrix product keeps the rows of the first factor and the columns of the second."""
    first, second = (call.bound[key] for key in _FACTORS[call.name])
    (output,) = call.outputs
    if call.name in ("mv", "linear"):  # the second factor is a vector, or turned over
        centred = call.known(second) is None
        found = call.places(first).each(
            lambda line: contracted(line, [first.ndim - 1], centred=centred)[: output.ndim]
        )
    else:
        found = _multiplied(call, first, second)
    others = call.operands(t for t in call.tensors if t is not first and t is not second)
    return [joined([(found, output.shape), *others], output.shape)]


@place_rule(pattern=r"_scaled_dot_product.*")
def attention(call: Placing) -> Found:
    """softmax(q k) v lies where its queries lie."""
    return [_multiplied(call, call.bound["query"], call.bound["value"]), *call.lost()[1:]]


def _multiplied(call: Placing, first: Tensor, second: Tensor) -> Places:
    """Return the places of a sum over the last dim of one factor and the last but one of another."""
    left, right = call.known(first), call.known(second)
    factors = [found for found in (left, right) if found is not None]
    # Of two that depend on the image, the places in the sum (of the keys in attention) are not the result's.
    centred = len(factors) < 2
    left, right = left or nowhere(first.ndim), right or nowhere(second.ndim)
    lines: list[Line] = []
    for rows, columns in zip(left.lines, right.lines, strict=True):
        if not centred and columns[-2] is not None and all(vector is None for vector in rows):
            columns = (None,) * len(columns)  # which key comes out where, nobody knows
        rows = contracted(rows, [first.ndim - 1], centred=centred)
        columns = contracted(columns, [second.ndim - 2], centred=centred)
        # Where both know windows or images, those of the first factor (the queries) are the result's.
        line = [column if row is None else row for row, column in zip(rows, columns, strict=True)]
        # Heads that share their values are spread.
        shape = call.outputs[0].shape
        lines.append(
            tuple(v if v is not None and len(v) == n else None for v, n in zip(line, shape, strict=True))
        )
    return made_of(factors, lines)
