"""Execution: folded, channels last, cropped and plain runs give the same maps; float64 proves it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Thread
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from erfattr import ERF, DeadPixelMap, Execution, FeatureUnit, SensitivityMaps
from erfattr.attr import _resolving
from erfattr.execution import prepared
from erfattr.receptive_field.trace import trace_layers
from tests.conftest import randomise_batch_norm


class Residual(nn.Module):
    """A convolution with batch normalisation beside a shortcut of the same stride."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, value: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(value)) + self.shortcut(value))


def computed(model: nn.Module, execution: Execution, images: Tensor, *units: FeatureUnit) -> tuple[str, ...]:
    # A loader of unknown length: few images that are known to be few are run on the model as it is.
    return SensitivityMaps(model, units, execution=execution).attribute([images])[0].computed


# --- equality with the plain run


@pytest.mark.parametrize("layer", ["bn1", "layer1", "layer2.0.conv1", "layer2.0.bn1", "layer3", "layer4"])
@pytest.mark.parametrize("option", ["fold", "channels_last", "crop"])
def test_each_option_alone_changes_nothing(
    resnet: nn.Module, images: Tensor, layer: str, option: str
) -> None:
    options = {name: name == option for name in ("fold", "channels_last", "crop")}
    expected = ERF(resnet, layer, execution=Execution.plain()).attribute(images)
    result = ERF(resnet, layer, execution=Execution(**options)).attribute(images)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11 * float(expected.max()))


def test_output_map_is_the_same(resnet: nn.Module, images: Tensor) -> None:
    expected = DeadPixelMap(resnet, execution=Execution.plain()).attribute(images, "predicted")
    result = DeadPixelMap(resnet).attribute(images, "predicted")
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11 * float(expected.max()))


def test_statistics_and_single_maps_of_a_crop_are_those_of_the_whole_image(
    resnet: nn.Module, images: Tensor
) -> None:
    _, plain = ERF(resnet, "layer1", execution=Execution.plain()).attribute(images, return_statistics=True)
    _, fast = ERF(resnet, "layer1").attribute(images, return_statistics=True)
    assert any("cropped" in word for word in fast.computed)
    assert plain.computed == ()
    for name in ("mean", "standard_error", "group_means"):
        expected = getattr(plain, name)
        torch.testing.assert_close(
            getattr(fast, name), expected, rtol=1e-9, atol=1e-11 * float(expected.max())
        )
    assert fast.source == plain.source
    single = ERF(resnet, "layer1").attribute(images, reduction="none")
    assert single.shape == (5, 64, 64)
    torch.testing.assert_close(single.mean(0), fast.mean, rtol=1e-12, atol=0)


_CONVOLUTIONS = st.tuples(
    st.just("conv"),
    st.integers(1, 5),  # kernel
    st.integers(1, 3),  # stride
    st.integers(0, 2),  # padding
    st.integers(1, 2),  # dilation
)
_POOLS = st.tuples(
    st.sampled_from(["max", "average"]), st.integers(2, 3), st.integers(1, 2), st.integers(0, 1)
)
_BLOCKS = st.tuples(st.just("residual"), st.integers(1, 2))


def build(parts: list[tuple[object, ...]], ceil_mode: bool) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for kind, *numbers in parts:
        if kind == "conv":
            kernel, stride, padding, dilation = numbers
            channels = 3 if not layers else 4
            layers += [
                nn.Conv2d(channels, 4, kernel, stride, padding, dilation),
                nn.BatchNorm2d(4),
                nn.Tanh(),
            ]
        elif kind == "residual":
            layers.append(Residual(3 if not layers else 4, 4, numbers[0]))
        else:
            layers.append(nn.Conv2d(3, 4, 1) if not layers else nn.Identity())
            kernel, stride, padding = numbers
            if kind == "max":
                layers.append(nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode))
            else:
                layers.append(nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil_mode))
    model = nn.Sequential(*layers).double()
    randomise_batch_norm(model)
    return model


@pytest.mark.parametrize("large", [False, True])
@settings(max_examples=30, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    parts=st.lists(st.one_of(_CONVOLUTIONS, _POOLS, _BLOCKS), min_size=1, max_size=4),
    ceil_mode=st.booleans(),
    size=st.tuples(st.integers(24, 56), st.integers(24, 56)),
    place=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_crop_equals_the_whole_image(
    large: bool,
    parts: list[tuple[object, ...]],
    ceil_mode: bool,
    size: tuple[int, int],
    place: tuple[float, float],
) -> None:
    model = build(parts, ceil_mode)
    images = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            height, width = model(images).shape[2:]
        except RuntimeError:  # a window larger than its map
            assume(False)
    assume(height * width > 1)
    unit = (int(place[0] * height), int(place[1] * width))
    last = str(len(model) - 1)
    plain = ERF(model, last, unit, rectify="abs", execution=Execution.plain())
    fast = ERF(model, last, unit, rectify="abs")
    with large_from(1 if large else 1 << 20):
        try:
            expected, of_plain = plain.attribute(images, return_statistics=True)
        except ValueError as error:  # a unit that reads nothing but padding
            with pytest.raises(ValueError, match=re.escape(str(error))):
                fast.attribute([images])
            return
        result, of_fast = fast.attribute([images], return_statistics=True)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11 * float(expected.max()))
    assert of_fast.source == of_plain.source


# --- large images, of which the whole is not run


def large_from(pixels: int) -> AbstractContextManager[object]:
    """Let images of so many pixels count as large."""
    return mock.patch.object(_resolving, "_LARGE", pixels)


@contextmanager
def sizes_run(model: nn.Module) -> Iterator[set[tuple[int, int]]]:
    """Collect the sizes of the images that a model, or a copy of it, is run on with data."""
    seen: set[tuple[int, int]] = set()

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if not given[0].is_meta:
            seen.add((given[0].shape[2], given[0].shape[3]))

    handle = model.register_forward_pre_hook(note)
    yield seen
    handle.remove()


@pytest.mark.parametrize("count", [2, 5])
def test_of_a_large_image_only_what_the_unit_sees_is_run(resnet: nn.Module, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 160, 192, dtype=torch.float64, generator=generator)
    expected, plain = ERF(resnet, "layer1", execution=Execution.plain()).attribute(
        images, return_statistics=True
    )
    with large_from(160 * 192), sizes_run(resnet.conv1) as seen:
        result, statistics = ERF(resnet, "layer1").attribute(images, return_statistics=True)
    # The field of 43 pixels needs 48; beside it runs a part that begins 24 before and ends 28 behind.
    assert seen <= {(48, 48), (100, 100)}
    assert (100, 100) in seen
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11 * float(expected.max()))
    torch.testing.assert_close(statistics.group_means, plain.group_means, rtol=1e-9, atol=1e-14)
    assert statistics.source == plain.source
    assert statistics.computed[-1] == "cropped to 48 x 48 pixels"


class BySize(nn.Module):
    """A convolution behind which something else happens in images of more than 100 rows."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.last = nn.Identity()
        self.place = nn.Parameter(torch.linspace(-1, 1, 128)[None, None, :, None].repeat(1, 1, 1, 128))
        self.kind = kind
        self.other = nn.Conv2d(1, 2, 3, padding=1)
        self.scales = nn.Parameter(torch.tensor([1.0, 3.0]))
        # Neither parameters nor buffers: nobody knows them by a name.
        self.small, self.large = torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[[3.0]], [[5.0]]])

    def forward(self, image: Tensor) -> Tensor:
        value, rows = self.conv(image), image.shape[2]
        if self.kind == "operator" and rows > 100:
            value = torch.tanh(value)
        elif self.kind == "number":
            value = value * (3.0 if rows > 100 else 1.0)
        elif self.kind == "place":
            value = torch.tanh(value + self.place[:, :, :rows, : image.shape[3]])
        elif self.kind == "share":
            value = value / rows
        elif self.kind == "weights":
            value = (self.other if rows > 100 else self.conv)(image)
        elif self.kind == "entry":
            value = value * self.scales[int(rows > 100)]
        elif self.kind == "constant":
            value = value * (self.large if rows > 100 else self.small)
        value = self.last(value)
        if self.kind == "fails" and rows < 100:
            raise AssertionError("small")  # behind the layer that is wanted, as timm's networks do
        return value


@pytest.mark.parametrize(
    "kind", ["operator", "number", "weights", "entry", "constant", "place", "share", "fails", "nothing"]
)
def test_what_the_size_of_an_image_changes_is_not_missed(kind: str) -> None:
    torch.manual_seed(0)
    model, images = BySize(kind).double(), torch.rand(5, 1, 128, 128)
    expected = ERF(model, "last", rectify="abs", execution=Execution.plain()).attribute(images)
    with large_from(128 * 128), sizes_run(model) as seen:
        result = ERF(model, "last", rectify="abs").attribute(images)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=0)
    assert ((128, 128) in seen) == (kind != "nothing")


@pytest.mark.parametrize("kind", ["layer", "unit", "last map", "output"])
def test_a_large_image_that_needs_the_whole_gets_it(resnet: nn.Module, kind: str) -> None:
    images = torch.rand(5, 3, 96, 96, dtype=torch.float64)
    with large_from(96 * 96):
        if kind == "unit":
            with pytest.raises(ValueError, match=r"unit: expected a position inside the 24 x 24 map"):
                ERF(resnet, "layer1", (24, 0)).attribute(images)
            return
        made = DeadPixelMap if kind == "output" else ERF
        chosen = {"layer": "layer4"} if kind == "layer" else {}
        expected = made(resnet, **chosen, execution=Execution.plain()).attribute(images)
        torch.testing.assert_close(
            made(resnet, **chosen).attribute(images), expected, rtol=1e-9, atol=1e-11 * float(expected.max())
        )


# --- what is done, and when it is not


def test_what_was_done_is_said(resnet: nn.Module, images: Tensor) -> None:
    done = computed(resnet, Execution(), images, FeatureUnit("layer1", (8, 8)))
    # TRF of layer1: 43 pixels about 32, so rows 11 to 53; aligned to the stride of 4: 8 to 56.
    # Of the 20 batch normalisations five run up to layer1.
    assert done == ("5 batch normalisations folded", "channels last", "cropped to 48 x 48 pixels")
    assert computed(resnet, Execution(crop=False), images, FeatureUnit("layer1", (8, 8))) == done[:2]
    assert computed(resnet, Execution.plain(), images, FeatureUnit("layer1", (8, 8))) == ()


def test_no_crop_where_the_unit_sees_the_whole_image(resnet: nn.Module, images: Tensor) -> None:
    assert not any("cropped" in word for word in computed(resnet, Execution(), images, FeatureUnit("layer4")))


def test_crop_holds_all_units(resnet: nn.Module, images: Tensor) -> None:
    units = (FeatureUnit("layer1", (4, 4)), FeatureUnit("layer1", (9, 4)))
    results = SensitivityMaps(resnet, units).attribute(images)
    assert "cropped to 60 x 40 pixels" in results[0].computed  # rows -5..57, columns -5..37
    for unit, result in zip(units, results, strict=True):
        expected = ERF(resnet, unit.layer, unit.unit, execution=Execution.plain()).attribute(images)
        torch.testing.assert_close(result.mean, expected, rtol=1e-9, atol=1e-11 * float(expected.max()))


def test_position_embedding_switches_the_crop_off() -> None:
    class Embedded(nn.Module):
        """Adds what depends on the place: the trace reads the same pixels, the numbers are others."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)
            self.last = nn.Identity()
            self.place = nn.Parameter(torch.rand(1, 1, 40, 40))

        def forward(self, value: Tensor) -> Tensor:
            value = self.conv(value)
            return self.last(torch.tanh(value + self.place[:, :, : value.shape[2], : value.shape[3]]))

    torch.manual_seed(0)
    model, images = Embedded().double(), torch.rand(2, 1, 40, 40)
    assert not any("cropped" in word for word in computed(model, Execution(), images, FeatureUnit("last")))
    expected = ERF(model, "last", rectify="abs", execution=Execution.plain()).attribute(images)
    torch.testing.assert_close(
        ERF(model, "last", rectify="abs").attribute([images]), expected, rtol=1e-9, atol=0
    )


def test_squeeze_and_excite_switches_the_crop_off() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, value: Tensor) -> Tensor:
            return value * value.mean((2, 3), keepdim=True)

    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Gated()).double()
    images = torch.rand(2, 1, 40, 40)
    assert not any("cropped" in word for word in computed(model, Execution(), images, FeatureUnit("1")))


@pytest.mark.parametrize(
    ("change", "folded"),
    [
        ("none", 2),
        ("wanted", 1),
        ("hooked", 1),
        ("patched", 1),
        ("patched normalisation", 1),
        ("read twice", 1),
        ("shared", 0),
        ("untraceable", 0),
    ],
)
def test_folding_only_where_it_is_proven(change: str, folded: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.second = self.first if change == "shared" else nn.Conv2d(4, 4, 3)
            self.last = self.norm if change == "shared" else nn.BatchNorm2d(4)

        def forward(self, value: Tensor) -> Tensor:
            if change == "untraceable" and value.sum() > 1e9:
                return value
            if change == "shared":
                value = torch.cat([value, value[:, :1]], 1)[:, :3]
            features = self.first(value)
            once = self.norm(features)
            if change == "read twice":
                once = once + features
            if change == "shared":
                once = once[:, :3]
            return self.last(self.second(once))

    torch.manual_seed(0)
    model = Net().double().eval()
    randomise_batch_norm(model)
    if change == "hooked":
        model.norm.register_forward_hook(lambda m, a, output: 2 * output)
    for name in {"patched": ["first"], "patched normalisation": ["norm"]}.get(change, []):
        module = model.get_submodule(name)
        module.forward = lambda value, plain=module.forward: 2 * plain(value)  # type: ignore[method-assign]
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    folds = trace_layers(model, {}, (12, 12), 3).folds
    fast, done = prepared(model, Execution(), {"first"} if change == "wanted" else set(), folds=folds)
    words = (f"{folded} batch normalisations folded",) if folded else ()
    assert done == (*words, "channels last")
    torch.testing.assert_close(fast(images), model(images), rtol=1e-9, atol=1e-12)
    assert fast is not model


def test_copy_shares_the_weights_and_takes_only_what_runs(resnet: nn.Module, images: Tensor) -> None:
    resnet.eval()
    begun = ["", "conv1", "bn1", "relu", "maxpool", "layer1"]
    copied, _ = prepared(resnet, Execution(fold=False, channels_last=True), begun=begun)
    assert copied.conv1 is not resnet.conv1
    assert copied.layer2 is resnet.layer2
    assert not copied.conv1.weight.requires_grad
    assert resnet.conv1.weight.requires_grad
    assert copied.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert resnet.conv1.weight.is_contiguous()
    assert copied.bn1.weight.data_ptr() == resnet.bn1.weight.data_ptr()
    # A forward pass may write to buffers, so those are the copy's own.
    assert copied.bn1.running_mean.data_ptr() != resnet.bn1.running_mean.data_ptr()
    torch.testing.assert_close(copied(images), resnet(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("count", "words"), [(3, ()), (4, ("cropped to 48 x 48 pixels",))])
def test_few_images_are_run_on_the_model_as_it_is(
    resnet: nn.Module, images: Tensor, count: int, words: tuple[str, ...]
) -> None:
    execution = Execution(fold=False, channels_last=False)
    expected = ERF(resnet, "layer1", (8, 8), execution=Execution.plain()).attribute([images[:count]])
    result, statistics = ERF(resnet, "layer1", (8, 8), execution=execution).attribute(
        images[:count], return_statistics=True
    )
    assert statistics.computed == words
    assert statistics.source is not None
    assert statistics.source.center == (32.0, 32.0)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11 * float(expected.max()))


def test_model_that_cannot_be_copied_runs_as_it_is(images: Tensor) -> None:
    class Uncopyable(nn.Conv2d):
        def __deepcopy__(self, memo: object) -> None:
            raise RuntimeError("no copies")

    torch.manual_seed(0)
    model = nn.Sequential(Uncopyable(3, 2, 3)).double()
    _, statistics = ERF(model).attribute(images, return_statistics=True)
    assert statistics.computed[0] == "as it is, since it cannot be copied: no copies"
    with pytest.raises(ValueError, match="precision: expected a model that can be copied, but no copies"):
        ERF(model, execution=Execution(precision="bfloat16")).attribute(images)


# --- precision


def test_precision(resnet: nn.Module, images: Tensor) -> None:
    expected = ERF(resnet, "layer3").attribute(images)
    resnet.float()
    double = ERF(resnet, "layer3", execution=Execution(precision="float64"))
    assert double.attribute(images, reduction="none").dtype == torch.float64
    # Weights rounded to float32 and back: the same map but for the ReLU decisions this flips.
    assert (double.attribute(images) - expected).abs().max() < 0.02 * expected.max()
    half = ERF(resnet, "layer3", execution=Execution(precision="bfloat16"))
    result, statistics = half.attribute(images, return_statistics=True)
    assert half.attribute(images, reduction="none").dtype == torch.bfloat16
    assert "bfloat16" in statistics.computed
    # bfloat16 has 8 bits of mantissa; a cosine similarity says that it is the same map.
    assert torch.cosine_similarity(result.flatten(), expected.flatten(), dim=0) > 0.97
    assert next(resnet.parameters()).dtype == torch.float32


@pytest.mark.slow
def test_compiled(resnet: nn.Module, images: Tensor) -> None:
    expected = DeadPixelMap(resnet).attribute(images)
    execution = Execution(compile=True)
    result, statistics = DeadPixelMap(resnet, execution=execution).attribute(images, return_statistics=True)
    assert "compiled" in statistics.computed
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


# --- errors, caller untouched


def test_errors(resnet: nn.Module) -> None:
    with pytest.raises(TypeError, match="fold: expected True or False, got 1"):
        Execution(fold=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision: expected one of None, 'float32', 'float64', 'bfloat16'"):
        Execution(precision="float16")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="execution: expected an Execution or None, got 'fast'"):
        ERF(resnet, execution="fast")  # type: ignore[arg-type]


def test_caller_untouched(resnet, images, snapshot, assert_same) -> None:  # type: ignore[no-untyped-def]
    resnet.train()
    before = snapshot(resnet)
    layouts = [parameter.is_contiguous() for parameter in resnet.parameters()]
    ERF(resnet, "layer1", execution=Execution(precision="float32")).attribute(images)
    assert_same(before, snapshot(resnet))
    assert layouts == [parameter.is_contiguous() for parameter in resnet.parameters()]
    assert images.is_contiguous()


def test_two_threads_share_a_model(resnet, images, snapshot, assert_same) -> None:  # type: ignore[no-untyped-def]
    expected = {layer: ERF(resnet, layer).attribute(images) for layer in ("layer1", "layer2")}
    resnet.train()
    before = snapshot(resnet)
    failures: list[str] = []

    def run(layer: str) -> None:
        for execution in (None, Execution.plain(), None):
            try:
                found = ERF(resnet, layer, execution=execution).attribute(images)
                torch.testing.assert_close(found, expected[layer], rtol=1e-9, atol=1e-12)
            except BaseException as error:
                failures.append(repr(error))

    threads = [Thread(target=run, args=(layer,)) for layer in ("layer1", "layer2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_same(before, snapshot(resnet))
