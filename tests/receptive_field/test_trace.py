"""Traced receptive fields: Table 1, hand arithmetic, the NaN probe as oracle, and what cannot be traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.models as zoo
from torch import Tensor, nn

from erfattr.receptive_field._tracing import Tracing
from erfattr.receptive_field.nan_probe import nan_probe
from erfattr.receptive_field.trace import receptive_fields, theoretical_receptive_field
from tests.receptive_field.conftest import Functional, assert_equals_probe, conv, gate, on_meta

# Table 1 of the paper.
TABLE_1 = {
    "resnet18": 435,
    "resnet34": 899,
    "resnet50": 427,
    "resnet101": 971,
    "resnet152": 1451,
    "wide_resnet50_2": 427,
    "wide_resnet101_2": 971,
    "resnext50_32x4d": 427,
    "resnext101_32x8d": 971,
}


# -- closed form --


@pytest.mark.parametrize(("name", "size"), TABLE_1.items())
def test_table_1(name: str, size: int) -> None:
    model = on_meta(getattr(zoo, name))
    rf = theoretical_receptive_field(model, "layer4")
    assert rf.size == rf.local_size == (size, size)
    assert rf.stride == (32, 32)
    assert rf.output_size == (7, 7)
    assert rf.center((3, 3)) == (96.0, 96.0)
    half = size // 2
    assert rf.bounds((3, 3)) == (96 - half, 96 - half, 96 + half, 96 + half)
    assert rf.bounds((0, 6)) == (-half, 192 - half, half, 192 + half)
    assert rf.bounds((0, 6), clipped=True) == (0, max(192 - half, 0), min(half, 223), 223)
    assert (rf.status, rf.method, rf.unknown_operators, rf.note) == ("exact", "operators", (), "")


@pytest.mark.parametrize("name", TABLE_1)
def test_every_layer_in_one_pass(name: str) -> None:
    model = on_meta(getattr(zoo, name))
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    fields = receptive_fields(model)
    assert len(runs) == 1
    assert fields["layer4"].size[0] == TABLE_1[name]
    assert (fields["conv1"].size, fields["maxpool"].size) == ((7, 7), (11, 11))
    assert fields["avgpool"].status == fields["fc"].status == fields[""].status == "whole image"
    order = list(fields)
    assert (
        order.index("conv1") < order.index("layer1.0.conv1") < order.index("layer1.0") < order.index("layer1")
    )
    assert order[-1] == ""
    assert fields["layer3"] == theoretical_receptive_field(model, model.get_submodule("layer3"))


def chain(windows: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Size and stride of (kernel, stride, dilation) windows in a row, as in any textbook."""
    size = stride = 1
    for kernel, step, dilation in windows:
        size += dilation * (kernel - 1) * stride
        stride *= step
    return size, stride


VGG16 = [(3, 1, 1), (3, 1, 1), (2, 2, 1)] * 2 + [(3, 1, 1), (3, 1, 1), (3, 1, 1), (2, 2, 1)] * 3
CONVNEXT_TINY = (
    [(4, 4, 1)]
    + [(7, 1, 1)] * 3
    + [(2, 2, 1)]
    + [(7, 1, 1)] * 3
    + [(2, 2, 1)]
    + [(7, 1, 1)] * 9
    + [(2, 2, 1)]
    + [(7, 1, 1)] * 3
)
# First convolution, then the strides of the 17 depthwise 3x3 convolutions.
MOBILENET_V2 = [(3, 2, 1)] + [(3, step, 1) for step in (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)]
ALEXNET = [(11, 4, 1), (3, 2, 1), (5, 1, 1), (3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 1)]


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("vgg16", VGG16),
        ("convnext_tiny", CONVNEXT_TINY),
        ("mobilenet_v2", MOBILENET_V2),
        ("alexnet", ALEXNET),
    ],
)
@pytest.mark.parametrize("input_size", [(224, 224), (160, 97)])
def test_plain_chains_follow_the_textbook(
    name: str, windows: list[tuple[int, int, int]], input_size: tuple[int, int]
) -> None:
    size, stride = chain(windows)
    rf = theoretical_receptive_field(on_meta(getattr(zoo, name)), "features", input_size)
    assert (rf.size, rf.stride, rf.status) == ((size, size), (stride, stride), "exact")


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("googlenet", "inception5b", 379),
        ("inception_v3", "Mixed_7c", 1311),
        ("densenet121", "features", 2071),
    ],
)
def test_branching_networks(name: str, layer: str, size: int) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    input_size = 299 if name == "inception_v3" else 224
    rf = theoretical_receptive_field(on_meta(getattr(zoo, name), **options), layer, input_size)
    assert (rf.size, rf.stride, rf.status) == ((size, size), (32, 32), "exact")


@pytest.mark.parametrize(("dilated", "stride"), [((False, False, True), 16), ((True, True, True), 4)])
def test_dilated_resnet_keeps_its_field(dilated: tuple[bool, ...], stride: int) -> None:
    model = on_meta(zoo.resnet50, replace_stride_with_dilation=list(dilated)) if len(dilated) == 3 else None
    assert model is not None
    rf = theoretical_receptive_field(model, "layer4")
    assert (rf.size, rf.stride, rf.status) == ((427, 427), (stride, stride), "exact")


def test_even_kernels_put_the_centre_unit_at_the_exact_centre_of_the_image() -> None:
    # ResNet's five strides with kernels 8, 4, 4, 4, 4 and one more row of padding before than after where the
    # kernel needs it: each stage moves the centre by half of its stride.
    def pad(before: int, after: int) -> nn.Module:
        return nn.ZeroPad2d((before, after, before, after))

    stages = [nn.Sequential(pad(3, 3), nn.Conv2d(3, 4, 8, stride=2)), nn.MaxPool2d(4, 2, padding=1)]
    stages += [nn.Sequential(pad(1, 1), nn.Conv2d(4, 4, 4, stride=2)) for _ in range(3)]
    rf = theoretical_receptive_field(nn.Sequential(*stages))
    assert rf.output_size == (7, 7)
    assert rf.center((3, 3)) == (111.5, 111.5)
    odd = nn.Sequential(*(nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(5)))
    assert theoretical_receptive_field(odd).center((3, 3)) == (96.0, 96.0)


def test_axes_are_kept_apart() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 2, (1, 7), padding=(0, 3)), nn.Conv2d(2, 2, (5, 3), (3, 2), (2, 0), (2, 1))
    )
    rf = theoretical_receptive_field(model, input_size=(40, 20))
    assert (rf.size, rf.stride) == ((9, 9), (3, 2))
    assert rf.bounds((1, 1)) == (3 - 2, 2 - 3, 3 - 2 + 8, 2 - 3 + 8)
    assert rf.touched((1, 1))[0] == (1, 3, 5, 7, 9)
    assert rf.touched((1, 1))[1] == tuple(range(8))


def test_unclipped_size_does_not_need_a_large_image() -> None:
    model = on_meta(zoo.resnet152)
    for size in (32, 33, 64, (96, 40)):
        rf = theoretical_receptive_field(model, "layer4", size)
        assert (rf.size, rf.stride, rf.center((0, 0))) == ((1451, 1451), (32, 32), (0.0, 0.0))


# -- operators that mix positions --


def test_squeeze_excite_sees_everything_and_keeps_its_place() -> None:
    rf = theoretical_receptive_field(on_meta(zoo.efficientnet_b0), "features")
    assert (rf.status, rf.size, rf.local_size) == ("whole image", (224, 224), (851, 851))
    assert (rf.stride, rf.center((3, 3)), rf.bounds((0, 0))) == ((32, 32), (96.0, 96.0), (0, 0, 223, 223))


def test_gate_by_pooling_over_the_whole_map_keeps_the_place_too() -> None:
    # The pooling is an ordinary 12x12 window; that its one output is spread over the map makes it a gate.
    model = Functional(gate, conv(3, 2, 3, padding=1), conv(2, 2, 1))
    rf = theoretical_receptive_field(model, input_size=12)
    assert (rf.status, rf.size, rf.local_size) == ("whole image", (12, 12), (3, 3))
    assert (rf.stride, rf.center((2, 9)), rf.bounds((2, 9))) == ((1, 1), (2.0, 9.0), (0, 0, 11, 11))


def test_vision_transformer() -> None:
    model = on_meta(zoo.vit_b_16)
    fields = receptive_fields(model)
    assert fields["conv_proj"].size == (16, 16)
    assert fields["conv_proj"].center((3, 4)) == (55.5, 71.5)
    assert (fields[""].status, fields[""].size) == ("whole image", (224, 224))
    # Tokens keep their place through attention, though they have read everything then.
    for name in ("encoder.layers.encoder_layer_0", "encoder.ln"):
        tokens = fields[name]
        assert (tokens.status, tokens.size, tokens.local_size) == ("whole image", (224, 224), (16, 16))
        assert (tokens.output_size, tokens.stride) == ((14, 14), (16, 16))
        assert tokens.center((3, 4)) == (55.5, 71.5)
        assert "the output is (N, L, C) tokens, 1 prefix + 14 x 14 grid" in tokens.note


def test_windowed_attention_depends_on_the_position() -> None:
    rf = theoretical_receptive_field(on_meta(zoo.swin_t), "features.1.0")
    assert (rf.status, rf.output_size, rf.stride) == ("position-dependent", (56, 56), (4, 4))
    assert "(N, H, W, C)" in rf.note
    # The first block attends inside windows of 7 patches of 4 pixels; the patch itself is local.
    assert rf.bounds((0, 0)) == (0, 0, 27, 27)
    assert rf.bounds((6, 7)) == (0, 28, 27, 55)
    assert rf.center((6, 7)) == (25.5, 29.5)
    assert rf.local_size == (4, 4)
    shifted = theoretical_receptive_field(on_meta(zoo.swin_t), "features.1.1")
    # Shifted by 3 patches: patch 5 sees patches 3..9, in windows 0 and 1 (patches 0..13) of the block before;
    # patch 25 sees patches 24..30, in windows 3 and 4 (patches 21..34).
    assert shifted.bounds((5, 25)) == (0, 4 * 21, 4 * 14 - 1, 4 * 35 - 1)


def test_patch_merging_moves_rows_and_columns_alike() -> None:
    """timm's Swin folds both dims of a window into one with a view, and permutes them back."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224")
    fields = receptive_fields(model.eval(), (224, 224), probe=False)
    merged = [fields[f"layers.{stage}.downsample"] for stage in (1, 2, 3)]
    assert [field.stride for field in merged] == [(8, 8), (16, 16), (32, 32)]
    assert [field.local_size for field in merged] == [(8, 8), (16, 16), (32, 32)]
    for field in fields.values():
        if field.output_size[0] == field.output_size[1] > 1:
            assert field.stride[0] == field.stride[1]
            assert field.local_size[0] == field.local_size[1]


def test_pooling_along_one_axis_only() -> None:
    model = Functional(lambda x: x * x.mean(2, keepdim=True))
    rf = theoretical_receptive_field(model, input_size=(12, 10))
    assert (rf.status, rf.size, rf.local_size) == ("whole image", (12, 1), (1, 1))
    assert "along rows only" in rf.note
    assert rf.touched((3, 4)) == (tuple(range(12)), (4,))


# -- independent oracle --


# Sizes are as small as five halvings allow, so that borders are everywhere.
NETWORKS = [
    ("resnet18", "layer2", (48, 32), {}),
    ("squeezenet1_1", "features", 50, {}),
    ("mobilenet_v2", "features", (32, 40), {}),
    pytest.param("vgg16", "features", 64, {}, marks=pytest.mark.slow),
    pytest.param("mobilenet_v2", "features", 96, {}, marks=pytest.mark.slow),
    pytest.param("mnasnet0_5", "layers", 64, {}, marks=pytest.mark.slow),
    pytest.param("shufflenet_v2_x0_5", "conv5", 64, {}, marks=pytest.mark.slow),
    pytest.param("resnet18", "layer4", (64, 96), {}, marks=pytest.mark.slow),
    pytest.param(
        "resnet50",
        "layer3",
        64,
        {"replace_stride_with_dilation": [False, True, True]},
        marks=pytest.mark.slow,
    ),
    pytest.param("densenet121", "features", 64, {}, marks=pytest.mark.slow),
    pytest.param(
        "googlenet", "inception5b", 96, {"aux_logits": False, "init_weights": False}, marks=pytest.mark.slow
    ),
    pytest.param(
        "inception_v3", "Mixed_6a", 107, {"aux_logits": False, "init_weights": False}, marks=pytest.mark.slow
    ),
    pytest.param("efficientnet_b0", "features", 64, {}, marks=pytest.mark.slow),
    pytest.param("efficientnet_b0", "features.1.0.block.0", 64, {}, marks=pytest.mark.slow),
    pytest.param("convnext_tiny", "features.3", 64, {}, marks=pytest.mark.slow),
    pytest.param("convnext_tiny", "features", 64, {}, marks=pytest.mark.slow),
    pytest.param("regnet_x_400mf", "trunk_output", 64, {}, marks=pytest.mark.slow),
    pytest.param("regnet_y_400mf", "trunk_output", 64, {}, marks=pytest.mark.slow),
    pytest.param("alexnet", "features", 100, {}, marks=pytest.mark.slow),
    pytest.param("swin_t", "features.1", 64, {}, marks=pytest.mark.slow),
    pytest.param("swin_t", "features.3", 112, {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "layer", "size", "options"), NETWORKS)
def test_networks_against_the_probe(name: str, layer: str, size: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    assert_equals_probe(getattr(zoo, name)(**options), layer, size, channels_last=name == "swin_t")


# -- invariance --


def test_same_answer_with_and_without_data_and_in_either_mode() -> None:
    real, empty = zoo.resnet18().train(), on_meta(zoo.resnet18)
    assert receptive_fields(real, 64) == receptive_fields(empty, 64)


def test_layer_by_module_or_name_and_size_by_one_number() -> None:
    model = on_meta(zoo.resnet18)
    by_name = theoretical_receptive_field(model, "layer3", (64, 64))
    assert by_name == theoretical_receptive_field(model, model.layer3, 64)
    assert by_name.layer == "layer3"


def test_a_layer_that_runs_twice_counts_as_of_its_last_run() -> None:
    model = nn.Sequential(layer := nn.Conv2d(3, 3, 3), layer)
    assert theoretical_receptive_field(model, layer, 12).size == (5, 5)


def test_other_numbers_of_channels() -> None:
    assert theoretical_receptive_field(nn.Conv2d(1, 1, 5), input_size=9, in_channels=1).size == (5, 5)


# -- what is not understood --


# The schema is given, since torch 2.4 reads none off annotations that are strings.
@torch.library.custom_op("erfattr_tests::shift_down", mutates_args=(), schema="(Tensor x) -> Tensor")
def shift_down(x: Tensor) -> Tensor:
    return x.roll(2, 2).clone()


@shift_down.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_unknown_operator_falls_back_to_the_probe_and_says_so() -> None:
    model = Functional(lambda x, a, b: b(shift_down(a(x))), conv(3, 2, 3, padding=1), conv(2, 2, 1))
    rf = theoretical_receptive_field(model, input_size=12)
    assert (rf.method, rf.unknown_operators) == ("nan probe", ("erfattr_tests::shift_down",))
    assert rf.touched((6, 6)) == ((3, 4, 5), (5, 6, 7))
    assert "clipped" in rf.note
    fields = receptive_fields(model, 12)
    assert (fields["parts.0"].method, fields["parts.1"].method) == ("operators", "nan probe")
    assert fields["parts.0"].size == (3, 3)
    assert list(receptive_fields(model, 12, probe=False)) == ["parts.0"]


def test_unknown_operator_without_data_gives_an_upper_bound() -> None:
    model = on_meta(lambda: Functional(lambda x, a: shift_down(a(x)), conv(3, 2, 3, padding=1)))
    rf = theoretical_receptive_field(model, input_size=12)
    assert (rf.status, rf.method) == ("upper bound", "operators")
    assert rf.unknown_operators == ("erfattr_tests::shift_down",)
    assert rf.bounds((3, 3)) == (0, 0, 11, 11)
    assert "not understood" in rf.note


def test_forward_that_looks_at_values_falls_back_to_the_probe() -> None:
    model = Functional(lambda x, a: a(x) if float(x.nan_to_num().sum()) > 0 else x, conv(3, 2, 3, padding=1))
    rf = theoretical_receptive_field(model, input_size=8)
    assert (rf.method, rf.size, rf.status, rf.stride) == ("nan probe", (3, 3), "exact", (1, 1))
    assert rf.unknown_operators == ("aten._local_scalar_dense.default",)
    assert rf.touched((0, 7)) == ((0, 1), (6, 7))
    assert receptive_fields(model, 8, probe=False) == {}


def test_forward_that_looks_at_values_without_data() -> None:
    model = on_meta(lambda: Functional(lambda x, a: a(x) if float(x.sum()) > 0 else x, conv(3, 2, 3)))
    with pytest.raises(
        ValueError, match=r"model: the forward pass of the Functional stopped at .*meta device"
    ):
        theoretical_receptive_field(model, input_size=8)


# -- bad input --


def test_unknown_layer() -> None:
    with pytest.raises(ValueError, match=r"has no layer 'layer5'; nearest: .*layer4"):
        theoretical_receptive_field(on_meta(zoo.resnet18), "layer5")


def test_layer_of_another_model() -> None:
    with pytest.raises(ValueError, match="layer: expected a submodule"):
        theoretical_receptive_field(on_meta(zoo.resnet18), nn.Conv2d(3, 3, 1))


def test_layer_of_another_type() -> None:
    with pytest.raises(TypeError, match="layer: expected a module or its dotted name, got 4"):
        theoretical_receptive_field(on_meta(zoo.resnet18), 4)  # type: ignore[arg-type]


def test_layer_that_never_runs() -> None:
    model = Functional(lambda x, a, b: a(x), conv(3, 2, 1), conv(3, 2, 3))
    for measure in (theoretical_receptive_field, nan_probe):
        with pytest.raises(ValueError, match=r"'parts.1' never ran in the forward pass of the Functional"):
            measure(model, "parts.1", 8)
    assert list(receptive_fields(model, 8)) == ["parts.0", ""]


def test_output_without_a_map() -> None:
    model = on_meta(
        zoo.VisionTransformer, image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
    )
    probed = nan_probe(model.to_empty(device="cpu").apply(_fill), "encoder", 32)
    assert (probed.output_size, probed.status) == ((4, 4), "whole image")
    with pytest.raises(ValueError, match=r"output to give a spatial map .*, got shape \(1, 1, 192\)"):
        theoretical_receptive_field(Functional(lambda x: x.flatten(1)[:, None]), None, 8)
    with pytest.raises(ValueError, match="an output that is not one tensor"):
        theoretical_receptive_field(Functional(lambda x: (x, x)), input_size=8)
    with pytest.raises(ValueError, match="does not depend on the image"):
        theoretical_receptive_field(Functional(lambda x, a: a.weight * 2, conv(3, 2, 3)), input_size=8)


def _fill(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.constant_(parameter, 0.1)


@pytest.mark.parametrize("size", [0, (0, 5), (5,), (5, 5, 5), "224", (5.0, 5), (True, 5), None])
@pytest.mark.parametrize("measure", [theoretical_receptive_field, nan_probe])
def test_bad_input_size(measure: Any, size: Any) -> None:
    with pytest.raises(ValueError, match=r"input_size: expected \(H, W\), two positive integers, got"):
        measure(nn.Conv2d(3, 1, 1), None, size)
    with pytest.raises(ValueError, match="input_size: expected"):
        receptive_fields(nn.Conv2d(3, 1, 1), size)


def test_model_that_is_no_module() -> None:
    for measure in (theoretical_receptive_field, receptive_fields, nan_probe):
        with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got"):
            measure(lambda x: x)  # type: ignore[arg-type]


def test_bad_numbers_of_channels_and_images() -> None:
    with pytest.raises(ValueError, match="in_channels: expected a positive integer, got 0"):
        theoretical_receptive_field(nn.Conv2d(3, 1, 1), in_channels=0)
    with pytest.raises(TypeError, match="batch_size: expected a positive integer"):
        nan_probe(nn.Conv2d(3, 1, 1), batch_size=1.5)  # type: ignore[arg-type]


def test_image_too_small_for_the_network_raises_what_the_network_raises() -> None:
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        theoretical_receptive_field(nn.Conv2d(3, 1, 9), input_size=5)


# -- the caller's model --


class Caching(nn.Module):
    """Keeps tensors of the pass, counts calls in a buffer, draws random numbers, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("calls", torch.zeros(1))
        self.cache: Tensor | None = None
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.cache = self.norm(self.conv(x)) + torch.rand(1)
        self.calls += 1
        if self.fail:
            raise RuntimeError("broken on purpose")
        return self.cache


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("measure", [theoretical_receptive_field, nan_probe])
def test_model_comes_back_as_it_was(measure: Any, fail: bool) -> None:
    model = Caching().train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.fail = fail
    before = {name: value.clone() for name, value in model.state_dict().items()}
    storages = [parameter.data_ptr() for parameter in model.parameters()]
    random = torch.get_rng_state()
    if fail:
        with pytest.raises(RuntimeError, match="broken on purpose"):
            measure(model, "conv" if measure is nan_probe else None, 6)
    else:
        assert measure(model, None, 6).size == (3, 3)
    assert (model.training, model.norm.training, model.conv.training) == (True, False, True)
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
    assert [parameter.data_ptr() for parameter in model.parameters()] == storages
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.cache is None
    assert list(model.state_dict()) == list(before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), random)


def test_nothing_stays_active() -> None:
    theoretical_receptive_field(nn.Conv2d(3, 1, 1), input_size=4)
    assert not any(
        isinstance(mode, Tracing) for mode in torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    )
    assert float(nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2)).isnan().sum()) == 0.0


def test_field_whose_dims_nothing_shows_says_so() -> None:
    note = "rows and columns are taken to be where maps have them, which is not proven"
    known = Functional(lambda x, a: a(x), nn.Conv2d(3, 2, 1))
    assert theoretical_receptive_field(known, None, 8).note == ""
    strided = Functional(lambda x, a: (lambda y: y.as_strided(y.shape, y.stride()))(a(x)), nn.Conv2d(3, 2, 1))
    field = theoretical_receptive_field(strided, None, 8)
    assert (field.status, field.size, field.note) == ("exact", (1, 1), note)
