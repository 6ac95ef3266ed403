"""Rules for matrix products and attention, which mix positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from erfattr.receptive_field._axes import Axis
from erfattr.receptive_field._operators.reducing import gathered_along
from erfattr.receptive_field._operators.registry import Call, Results, anywhere, rule
from erfattr.receptive_field._provenance import Provenance, pointwise
from erfattr.receptive_field._rules import FACTORS


@rule(*FACTORS)
def product(call: Call) -> Results | None:
    """A matrix product: each output has read a row of the first factor and a column of the second."""
    first, second = (call.bound[key] for key in FACTORS[call.name])
    left, right = call[first], call[second]
    (output,) = call.outputs
    if call.name == "linear" and right is not None:
        return None
    parts: list[tuple[Provenance, Sequence[int]]] = []
    if left is not None:
        parts.append((left.each(lambda axis: axis.united([first.ndim - 1])), (1,) * output.ndim))
    if right is not None:
        parts.append((right.each(lambda axis: axis.united([second.ndim - 2])), (1,) * output.ndim))
    if left is not None and right is not None:
        # Both factors depend on the image: which of the two places is the result's is anyone's guess.
        parts = [(found.each(Axis.mixed), shape) for found, shape in parts]
    parts += call.operands(t for t in call.tensors if t is not first and t is not second)
    return [pointwise(parts, output.ndim)]


@rule(pattern=r"_scaled_dot_product.*")
def attention(call: Call) -> Results | None:
    """softmax(q k) v: each query has read all keys and values of its batch and head."""
    query, key, value = call.bound["query"], call.bound["key"], call.bound["value"]
    if query.ndim != 4 or any(t.ndim != 4 for t in (key, value)) or query.shape[1] != key.shape[1]:
        return None
    parts = [
        (found.each(partial(gathered_along, dims=dims)), (1,) * 4)
        for tensor, dims in ((query, [3]), (key, [2, 3]), (value, [2]))
        if (found := call[tensor]) is not None
    ]
    others = [t for t in call.tensors if all(t is not known for known in (query, key, value))]
    if any(call[t] is not None for t in others):
        return None
    whole = pointwise(parts, 4)
    return [whole, *(anywhere(whole, output) for output in call.outputs[1:])]


@rule("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
def fused_attention(call: Call) -> Results | None:
    """Self-attention in one operator, tokens along dim 1."""
    found = call[call.tensors[0]]
    if found is None:
        return None
    if call.name == "_transformer_encoder_layer_fwd":
        return [found.each(lambda axis: axis.normalised([1]).united([2]))] * len(call.outputs)
    parts = [
        (each.each(partial(gathered_along, dims=[1, 2])), (1, 1, 1))
        for each, _ in call.operands(call.tensors)
    ]
    parts.append((found.each(lambda axis: axis.united([2]).mixed()), (1, 1, 1)))
    whole = pointwise(parts, 3)
    return [whole, *(anywhere(whole, output) for output in call.outputs[1:])]
