"""Rules for operators that move elements about and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from erfattr.receptive_field._place_rules.registry import Found, Placing, place_rule
from erfattr.receptive_field._places import (
    Line,
    Places,
    along,
    contracted,
    made_of,
    nowhere,
    rolled,
    together,
    united,
    viewed,
    without,
)
from erfattr.receptive_field._rules import dims_of


@place_rule(
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "view_copy", "squeeze"),
    "unsqueeze",
)
def view(call: Placing) -> Found:
    """The elements in the same order, in another shape."""
    old, new = call.tensors[0].shape, call.outputs[0].shape
    if old.numel() != new.numel() or not new.numel():
        return call.lost()
    return [viewed(call.first, old, new)]


@place_rule("expand", "expand_copy")
def expand(call: Placing) -> Found:
    """Repeated along dims of one entry."""
    own, shape = call.tensors[0].shape, call.outputs[0].shape
    return [call.first.each(lambda line: united([(line, own)], shape))]


@place_rule("permute", "permute_copy")
def permute(call: Placing) -> Found:
    """Dims in another order."""
    order = dims_of(list(call.bound["dims"]), call.tensors[0].ndim)
    return [call.first.each(lambda line: tuple(line[dim] for dim in order))]


@place_rule("transpose", "t", "transpose_copy", "swapaxes")
def transpose(call: Placing) -> Found:
    """Two dims change places."""
    ndim = call.tensors[0].ndim
    pair = [call.bound.get("dim0", 0), call.bound.get("dim1", min(1, ndim - 1))]
    first, second = dims_of(pair, ndim) if ndim else (0, 0)
    order = list(range(ndim))
    if ndim:
        order[first], order[second] = second, first
    return [call.first.each(lambda line: tuple(line[dim] for dim in order))]


def one_dim(call: Placing) -> int:
    """Return the dim that a call is about."""
    value = call.bound.get("dim", call.bound.get("dimension", 0))
    return dims_of(value, call.tensors[0].ndim)[0]


@place_rule("select", "unbind", "select_copy")
def select(call: Placing) -> Found:
    """One index of a dim, which goes."""
    dim, found = one_dim(call), call.first

    def at(index: int) -> Places:
        def cut(line: Line) -> Line:
            one = along(line, dim, lambda vector: vector[index : index + 1])
            return without(contracted(one, [dim]), [dim])

        return found.each(cut)

    if call.name == "unbind":
        return [at(index) for index in range(len(call.outputs))]
    return [at(int(call.bound["index"]) % call.tensors[0].shape[dim])]


@place_rule("slice", "narrow", "slice_copy")
def cut(call: Placing) -> Found:
    """Some indices of a dim."""
    dim = one_dim(call)
    if call.name == "narrow":
        start, end, step = int(call.bound["start"]), None, 1
    else:
        start, end, step = call.bound["start"], call.bound["end"], call.bound["step"]
    length = call.outputs[0].shape[dim]
    return [call.first.each(lambda line: along(line, dim, lambda vector: vector[start:end:step][:length]))]


@place_rule(
    *("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"),
    *("split_copy", "split_with_sizes_copy"),
)
def split(call: Placing) -> Found:
    """A dim cut into parts."""
    dim, found = one_dim(call), call.first

    def part(end: int, length: int) -> Places:
        return found.each(lambda line: along(line, dim, lambda vector: vector[end - length : end]))

    lengths = [output.shape[dim] for output in call.outputs]
    return [part(end, length) for end, length in zip(np.cumsum(lengths).tolist(), lengths, strict=True)]


@place_rule("cat", "stack")
def cat(call: Placing) -> Found:
    """Tensors one behind the other."""
    (output,) = call.outputs
    (dim,) = dims_of(call.bound["dim"], output.ndim)
    parts = [tensor for tensor in call.bound["tensors"] if tensor.numel()]
    lengths = [1 if call.name == "stack" else tensor.shape[dim] for tensor in parts]
    found = [call.known(tensor) or nowhere(tensor.ndim) for tensor in parts]
    if call.name == "stack":
        found = [each.each(lambda line: (*line[:dim], None, *line[dim:])) for each in found]
    return [made_of(found, [_behind([each.lines[k] for each in found], lengths, dim) for k in range(3)])]


def _behind(lines: Sequence[Line], lengths: Sequence[int], dim: int) -> Line:
    """Return the line of tensors one behind the other along a dim, from theirs and their lengths there."""
    vectors = [[vector for line in lines if (vector := line[d]) is not None] for d in range(len(lines[0]))]
    if not vectors[dim]:
        return together(vectors)
    # What the other dims add is the same for all, then, or nothing is known.
    others = [own for d, own in enumerate(vectors) if d != dim]
    if any(not np.array_equal(own[0], vector, equal_nan=True) for own in others for vector in own[1:]):
        return (None,) * len(vectors)
    # An entry that comes from elsewhere (a class token) has no place.
    pieces = [
        np.full(length, np.nan) if (vector := line[dim]) is None else vector
        for line, length in zip(lines, lengths, strict=True)
    ]
    vectors[dim] = [np.concatenate(pieces)]
    return together(vectors)


@place_rule("roll", "flip")
def turn(call: Placing) -> Found:
    """Another order along some dims."""
    if not call.bound["dims"]:  # rolled as if flattened
        return call.lost()
    found = call.first
    dims = dims_of(list(call.bound["dims"]), call.tensors[0].ndim)
    for dim, shift in zip(dims, call.bound.get("shifts", dims), strict=True):
        if call.name == "roll":
            found = rolled(found, dim, int(shift))
        else:
            found = found.each(partial(along, dim=dim, change=np.flip))
    return [found]


@place_rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Placing) -> Found:
    """Channels in another order."""
    return [call.first.each(lambda line: along(line, 1, lambda _: None))]


@place_rule("index_select", "index")
def index(call: Placing) -> Found:
    """Indices along one dim; where they are computed from the image, what they pick may lie anywhere."""
    if call.name == "index_select":
        dim, chosen = one_dim(call), call.bound["index"]
    else:
        given = [(d, each) for d, each in enumerate(call.bound["indices"]) if each is not None]
        if len(given) != 1 or given[0][1].ndim != 1:
            return call.lost()
        ((dim, chosen),) = given
    if chosen.is_meta or call.known(chosen) is not None:
        return [call.first.each(lambda line: along(line, dim, lambda _: None))]
    order = chosen.cpu().numpy()
    return [call.first.each(lambda line: along(line, dim, lambda vector: vector[order]))]


@place_rule("repeat", "tile")
def repeat(call: Placing) -> Found:
    """The whole tensor several times along some dims."""
    own, shape = call.tensors[0].shape, call.outputs[0].shape
    extra = len(shape) - len(own)

    def repeated(line: Line) -> Line:
        # One entry spread over many has lost its place.
        vectors = [
            None
            if vector is None or own[d] == 1 < shape[extra + d]
            else np.tile(vector, shape[extra + d] // own[d])
            for d, vector in enumerate(line)
        ]
        return (None,) * extra + tuple(vectors)

    return [call.first.each(repeated)]
