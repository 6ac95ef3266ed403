"""The record of a changed copy, and the walk over a model that makes it."""

from __future__ import annotations

import pytest
from torch import nn

from erfattr import LayerChange, ModelChanges
from erfattr.remedies.model_changes import Plan, RefusedError, changed_copy, words


def test_record_says_what_was_changed_and_what_was_left_and_why() -> None:
    changes = ModelChanges(
        (
            LayerChange(
                "stem.conv", "3x3 convolution, stride 2", "4x4 convolution, stride 2", "same outputs"
            ),
            LayerChange("pool", "2x2 max pool, stride 2", None, "it is even"),
        )
    )
    assert changes.changed == ("stem.conv",)
    assert changes.left == ("pool",)
    assert changes.describe() == (
        "stem.conv  3x3 convolution, stride 2 -> 4x4 convolution, stride 2: same outputs\n"
        "pool       2x2 max pool, stride 2, left: it is even"
    )


def test_plan_is_asked_about_layers_with_a_stride_and_no_others() -> None:
    asked: list[nn.Module] = []

    def plan(module: nn.Module) -> Plan:
        asked.append(module)
        return Plan("left")

    model = nn.Sequential(
        nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, (1, 2)), nn.Linear(1, 1), nn.MaxPool2d(2), nn.AvgPool2d(3, 1),
        nn.ConvTranspose1d(1, 1, 3, 2), nn.Sequential(nn.AvgPool3d(2)),
    )  # fmt: skip
    _, changes = changed_copy(model, plan, ())
    assert asked == [model[1], model[3], model[5], model[6][0]]
    assert [layer.before for layer in changes.layers] == [
        "3x3 convolution, stride 1x2",
        "2x2 max pool, stride 2",
        "3 transposed convolution, stride 2",
        "2x2x2 average pool, stride 2",
    ]


def test_edit_is_done_on_the_copy_alone() -> None:
    def rename(module: nn.Module) -> None:
        module.stride = (3, 3)

    model = nn.Sequential(nn.Conv2d(1, 1, 3, 2))
    changed, changes = changed_copy(model, lambda _: Plan("note", "another", rename), ())
    assert (model[0].stride, changed[0].stride) == ((2, 2), (3, 3))
    assert changes.layers == (LayerChange("0", "3x3 convolution, stride 2", "another", "note"),)


def test_layer_may_be_skipped_by_any_of_its_names() -> None:
    layer = nn.Conv2d(1, 1, 3, 2)
    model = nn.Sequential(layer, nn.Sequential(layer))
    _, changes = changed_copy(model, lambda _: Plan("note", "another"), ("1.0",))
    assert changes.layers == (LayerChange("0", "3x3 convolution, stride 2", None, "named in skip"),)


def test_refused_layers_are_all_named() -> None:
    def plan(module: nn.Module) -> Plan:
        raise RefusedError(f"{words(module)} is odd")

    with pytest.raises(
        ValueError, match=r"model: 'Conv2d': 3x3 convolution, stride 2 is odd\. Layers named in"
    ):
        changed_copy(nn.Conv2d(1, 1, 3, 2), plan, ())
    with pytest.raises(
        ValueError, match="'0': 2x2 max pool, stride 2 is odd; '1': 3x3 max pool, stride 2 is"
    ):
        changed_copy(nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3, 2)), plan, ())
