"""Operators that only move, copy or add elements: their weights are 0 and 1, which are their own squares.

The adjoint of such an operator is exact for second moments too, and PyTorch has it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from erfattr.forecast._rules.registry import Flow, rule, stop
from erfattr.forecast._tape import Step

_PADS = [f"{kind}_pad{axes}d" for kind in ("reflection", "replication") for axes in (1, 2, 3)]
_NEAREST = [
    f"{exact}upsample_nearest{exact_end}{axes}d"
    for axes in (1, 2, 3)
    for exact, exact_end in (("", ""), ("_", "_exact"))
]


def adjoint(step: Step, moments: list[Tensor | None], dtype: torch.dtype) -> dict[int, Tensor]:
    """Return what the adjoint of a step gives each of its operands, by the tensor's id.

    Args:
        step: The step.
        moments: Of its outputs.
        dtype: Of the computation.
    """
    leaves = {id(t): torch.zeros(t.shape, dtype=dtype, requires_grad=True) for t in step.read}

    def real(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in leaves:
            return leaves[id(value)]
        # What does not depend on the image and has no values cannot move anything that does.
        value = torch.zeros(value.shape, dtype=value.dtype) if value.is_meta else value.detach().cpu()
        return value.to(dtype) if value.is_floating_point() else value

    bound = dict(step.bound)
    schema = step.func._schema
    with torch.enable_grad():
        given = {name: tree_map(real, value) for name, value in bound.items()}
        positional = [given.pop(a.name) for a in schema.arguments if not a.kwarg_only and a.name in given]
        out = step.func(*positional, **given)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        pairs = [
            (output, moment.reshape(output.shape))
            for output, moment in zip(outputs, moments, strict=False)
            if moment is not None and output.requires_grad
        ]
        if not pairs:
            return {}
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            list(leaves.values()),
            [moment for _, moment in pairs],
            allow_unused=True,
        )
    return {key: value for key, value in zip(leaves, found, strict=True) if value is not None}


def hand_on(step: Step, found: dict[int, Tensor], flow: Flow) -> None:
    """Give each operand what it was found to get."""
    for tensor in step.read:
        if id(tensor) in found:
            flow.give(tensor, found[id(tensor)])


@rule(
    *(
        "cat",
        "stack",
        "clone",
        "_to_copy",
        "roll",
        "flip",
        "rot90",
        "constant_pad_nd",
        "index_select",
        "index",
    ),
    *("gather", "repeat", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col", "col2im", "sum"),
    *("_unsafe_index", "slice_scatter", "select_scatter", "narrow_copy", "tril", "triu", "_reshape_copy"),
    *(
        "split_copy",
        "split_with_sizes_copy",
        "unbind_copy",
        "diag_embed",
        "masked_fill",
        "native_channel_shuffle",
    ),
    *(
        "native_dropout",
        "permute_copy",
        "view_copy",
        "_pad_circular",
        "lift_fresh_copy",
        "_convert_element_type",
    ),
    *(*_PADS, *_NEAREST),
    pattern=".*_copy",
)
def moved(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """Hand moments back to where the elements came from."""
    if not step.name.startswith("_to") and any(t.is_meta and t.dtype == torch.int64 for t in _others(step)):
        return "where it moves things is not known on the meta device"
    hand_on(step, adjoint(step, moments, flow.memory.dtype), flow)
    return None


def _others(step: Step) -> list[Tensor]:
    read = {id(t) for t in step.read}
    return [t for t in tree_leaves(dict(step.bound)) if isinstance(t, Tensor) and id(t) not in read]


@rule("copy")
def copied(step: Step, moments: list[Tensor | None], flow: Flow) -> str | None:
    """What is written over another tensor has its moments; that one has none left."""
    source = step.bound["src"]
    if moments[0] is not None and any(source is tensor for tensor in step.read):
        flow.give(source, moments[0])
    return None


rule("fill", "zero", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like")(stop)
rule("new_zeros", "new_ones", "new_empty", "new_full", "bernoulli", "argmax", "argmin", "isnan", "uniform")(
    stop
)
