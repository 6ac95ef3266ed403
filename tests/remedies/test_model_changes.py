"""The record of a changed copy, the walk over a model that makes it, and what the copies promise."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from erfattr import Execution, LayerChange, ModelChanges, average_shortcuts, blur_downsampling
from erfattr.execution import prepared
from erfattr.models.demo import DemoNet
from erfattr.receptive_field.trace import trace_layers
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


# --- what every remedy that changes the outputs promises ---


REMEDIES = (blur_downsampling, average_shortcuts)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("remedy", REMEDIES)
def test_constant_images_give_the_original_outputs_away_from_the_padding(
    remedy: Callable[..., nn.Module],
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 1, stride=2)).double()
    image = torch.ones(1, 3, 21, 21, dtype=torch.float64)
    torch.testing.assert_close(remedy(model)(image), model(image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("size", [(1, 1), (33, 64), (63, 65), (64, 66)])
def test_feature_maps_keep_their_size_and_weights_their_names(
    remedy: Callable[..., nn.Module], size: tuple[int, int], resnet: DemoNet
) -> None:
    features = nn.Sequential(*list(resnet.eval().children())[:-2])
    changed = remedy(features)
    image = noise(1, 3, *size)
    assert changed(image).shape == features(image).shape
    changed.load_state_dict(features.state_dict())
    assert list(changed.state_dict()) == list(features.state_dict())


@pytest.mark.parametrize("remedy", REMEDIES)
def test_changed_model_is_copied_saved_and_folded(
    remedy: Callable[..., nn.Module], resnet: DemoNet, images: Tensor
) -> None:
    changed = remedy(resnet).eval()
    expected = changed(images)
    torch.testing.assert_close(copy.deepcopy(changed)(images), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(changed)(images), expected)
    folds = trace_layers(changed, {}, (64, 64), 3).folds
    folded, computed = prepared(changed, Execution(channels_last=False, crop=False), folds=folds)
    assert computed == ("20 batch normalisations folded",)
    torch.testing.assert_close(folded(images), expected, rtol=1e-9, atol=1e-9)


class OwnConvolution(nn.Conv2d):
    pass


@pytest.mark.parametrize("remedy", REMEDIES)
def test_convolution_of_another_class_is_refused_by_name(remedy: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(nn.Identity(), OwnConvolution(1, 1, 1, stride=2))
    with pytest.raises(ValueError, match="'1': a OwnConvolution, a convolution of its own kind"):
        remedy(model)
    assert remedy(model, skip=["1"])[1].stride == (2, 2)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_arguments_are_checked(remedy: Callable[..., nn.Module]) -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got 1"):
        remedy(1)
    with pytest.raises(TypeError, match="return_changes: expected True or False, got 1"):
        remedy(nn.Identity(), return_changes=1)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_caller_keeps_the_model(
    remedy: Callable[..., nn.Module],
    resnet: DemoNet,
    snapshot: Callable[[nn.Module], dict[str, object]],
    assert_same: Callable[[dict[str, object], dict[str, object]], None],
) -> None:
    before, lines = snapshot(resnet), str(resnet)
    changed = remedy(resnet)
    with torch.no_grad():
        changed.conv1.weight.zero_()
    assert_same(before, snapshot(resnet))
    assert str(resnet) == lines
