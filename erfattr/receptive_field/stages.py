"""The stages of a network: the last layers before its resolution falls, or blocks of even depth."""

from __future__ import annotations

from collections.abc import Mapping

from erfattr._checks import check_positive_int
from erfattr.receptive_field.field import ReceptiveField


def stage_layers(fields: Mapping[str, ReceptiveField], count: int = 4) -> tuple[str, ...]:
    """Return the last stages of a network, first to last, as one would name them in a figure.

    A stage is all layers of one stride, on the way down; it is named after its last outermost block:
    ``layer1`` to ``layer4`` of a ResNet, ``features.1`` to ``features.7`` of a ConvNeXt, the encoder of a
    U-Net. Of a network of one stride alone, such as a ViT, blocks of even distance are taken instead.

    Args:
        fields: What `erfattr.receptive_field.trace.receptive_fields` returned.
        count: How many stages at most.

    Returns:
        Dotted names, at most ``count``; fewer where the network has fewer.

    Raises:
        TypeError: ``count`` is not an integer.
        ValueError: ``count`` is not positive; no layer has a map of several positions.

    Example:
        >>> from torch import nn
        >>> from erfattr.receptive_field.trace import receptive_fields
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.ReLU())
        >>> stage_layers(receptive_fields(model, 32))
        ('1', '3')
    """
    check_positive_int("count", count)
    stages = _by_stride(fields)
    if not stages:
        raise ValueError("fields: expected a layer whose map has several positions, got none")
    chosen: list[str] = []
    for names in stages:
        outside = [name for name in names if not any(_holds(name, pick) for pick in chosen)]
        chosen.append(_last_block(outside or names, fields, chosen[-1] if chosen else None))
    chosen = _one_family(chosen, stages, fields)
    if len(stages) == 1:
        blocks = _blocks(stages[0], fields)
        if len(blocks) > 1:
            taken = min(count, len(blocks))
            return tuple(blocks[round((index + 1) * len(blocks) / taken) - 1] for index in range(taken))
    return tuple(chosen[-count:])


def _by_stride(fields: Mapping[str, ReceptiveField]) -> list[list[str]]:
    """Return the layers of each stride, as long as strides grow: a decoder's way back up is left out."""
    stages: list[list[str]] = []
    largest = 0.0
    for name, field in fields.items():
        stride = max(map(float, field.stride))
        if not name or max(field.output_size) == 1 or stride >= max(field.input_size):
            continue
        if stride > largest:
            largest = stride
            stages.append([])
        if stride == largest:
            stages[-1].append(name)
    return stages


def _holds(name: str, other: str) -> bool:
    return other.startswith(f"{name}.")


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _last_block(names: list[str], fields: Mapping[str, ReceptiveField], before: str | None) -> str:
    """Return the last of the outermost blocks; of single layers the last beside the stage before."""
    blocks = [name for name in names if any(_holds(name, other) for other in fields)]
    if blocks:
        depth = min(name.count(".") for name in blocks)
        return [name for name in blocks if name.count(".") == depth][-1]
    beside = [name for name in names if before is not None and _parent(name) == _parent(before)]
    return (beside or names)[-1]


def _one_family(
    chosen: list[str], stages: list[list[str]], fields: Mapping[str, ReceptiveField]
) -> list[str]:
    """Return the layers, those that stand apart replaced by a block beside the others if there is one."""
    parents = [_parent(name) for name in chosen]
    family = max(reversed(parents), key=parents.count)
    found = []
    for name, names in zip(chosen, stages, strict=True):
        beside = [
            other
            for other in names
            if _parent(other) == family and any(_holds(other, inner) for inner in fields)
        ]
        found.append(beside[-1] if beside and _parent(name) != family else name)
    return found


def _blocks(names: list[str], fields: Mapping[str, ReceptiveField]) -> list[str]:
    """Return the largest family of blocks beside each other."""
    families: dict[str, list[str]] = {}
    for name in names:
        if any(_holds(name, other) for other in fields):
            families.setdefault(_parent(name), []).append(name)
    return max(families.values(), key=len, default=[])
