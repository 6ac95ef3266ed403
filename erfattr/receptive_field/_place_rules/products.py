"""Rules for matrix products and attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from erfattr.receptive_field._operators.registry import dims_of
from erfattr.receptive_field._place_rules.registry import Found, Placing, place_rule
from erfattr.receptive_field._places import Places, contracted, joined

# The names of the two factors among an operator's arguments.
_FACTORS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "_addmm_activation": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "mv": ("self", "vec"),
    "linear": ("input", "weight"),
}


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
    left, right = call.known(first), call.known(second)
    # Of two that depend on the image, the places in the sum (the keys of attention) are not the result's.
    centred = left is None or right is None
    parts: list[tuple[Places, Sequence[int]]] = []
    if left is not None:
        kept = left.each(lambda line: contracted(line, [first.ndim - 1], centred=centred))
        if call.name == "mv":
            parts.append((kept.each(lambda line: line[:-1]), first.shape[:-1]))
        else:
            parts.append((kept, (*first.shape[:-1], 1)))
    if right is not None and call.name not in ("mv", "linear"):
        kept = right.each(lambda line: contracted(line, [second.ndim - 2], centred=centred))
        parts.append((kept, (*second.shape[:-2], 1, second.shape[-1])))
    parts += call.operands(t for t in call.tensors if t is not first and t is not second)
    return [joined(parts, output.shape)]


@place_rule(pattern=r"_scaled_dot_product.*")
def attention(call: Placing) -> Found:
    """softmax(q k) v lies where its queries lie."""
    parts: list[tuple[Places, Sequence[int]]] = []
    for key, gone in (("query", -1), ("value", -2)):
        tensor = call.bound[key]
        if (found := call.known(tensor)) is not None:
            dims = dims_of(gone, tensor.ndim)
            shape = [1 if dim in dims else length for dim, length in enumerate(tensor.shape)]
            parts.append((found.each(partial(contracted, dims=dims, centred=False)), shape))
    return [joined(parts, call.outputs[0].shape), *call.lost()[1:]]
