"""Everything that computes, on a GPU beside the CPU; ``--device cpu`` rehearses it where there is no GPU."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from captum.attr import IntegratedGradients, Saliency
from torch import Tensor, nn

from erfattr import (
    ERF,
    DeadPixelMap,
    DebiasedAttribution,
    Execution,
    FeatureUnit,
    ModelOutput,
    OnePixelAttack,
    SensitivityMaps,
    StrongPixelAttack,
    receptive_fields,
    theoretical_receptive_field,
)
from erfattr._files import StateFile
from erfattr.attr.calibration import calibrate
from erfattr.metrics.statistics import StreamingStatistics
from erfattr.models.demo import DemoNet
from erfattr.receptive_field.nan_probe import nan_probe
from tests.conftest import randomise_batch_norm, write_noise

pytestmark = pytest.mark.cuda

EXECUTIONS = {
    "folded, channels last, cropped": Execution(),
    "folded": Execution(channels_last=False, crop=False),
    "channels last": Execution(fold=False, crop=False),
    "cropped": Execution(fold=False, channels_last=False),
    "plain": Execution.plain(),
}


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    chosen = torch.device(request.config.getoption("--device"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return chosen


@pytest.fixture(autouse=True)
def _whole_float32() -> Iterator[None]:
    """TF32, which PyTorch's convolutions use by default, would hide what is compared here."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


class UNet(nn.Module):
    """Two levels, a skip, transposed convolution, no normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.below = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x).relu()
        result: Tensor = self.head(torch.cat([skip, self.up(self.below(skip).relu())], 1))
        return result


def vgg() -> nn.Module:
    features = torchvision.models.vgg11_bn().features
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def vit() -> nn.Module:
    model = torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=10)
    nn.init.normal_(model.heads.head.weight)  # which begins with zeros
    return model


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=10)


NETWORKS: dict[str, Any] = {
    "resnet": lambda: DemoNet(10),
    "vgg": vgg,
    "unet": UNet,
    "vit": vit,
    "swin": swin,
}


def network(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = NETWORKS[name]()
    randomise_batch_norm(model)
    return model.to(dtype).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(21, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def close(mine: Tensor, its: Tensor, tolerance: float) -> None:
    assert mine.shape == its.shape
    assert float((mine - its).abs().max() / its.abs().max()) < tolerance


@pytest.mark.parametrize("name", EXECUTIONS)
def test_maps_are_the_cpu_s(name: str, device: torch.device, images: Tensor) -> None:
    model = network("resnet")
    sources = [FeatureUnit("layer1"), FeatureUnit("layer3")]
    if name == "plain":
        sources.append(ModelOutput())  # type: ignore[arg-type]
    expected = SensitivityMaps(model, sources, execution=Execution.plain()).attribute(images.split(6))
    maps = SensitivityMaps(model.to(device), sources, execution=EXECUTIONS[name])
    for given in (images, images.to(device)):
        for mine, its in zip(maps.attribute(given.split(6)), expected, strict=True):
            assert mine.mean.device.type == "cpu"
            close(mine.mean, its.mean, 1e-10)
            close(mine.standard_error, its.standard_error, 1e-7)
            close(mine.group_means, its.group_means, 1e-10)
            assert mine.group_sizes == its.group_sizes


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network(name: str, device: torch.device, images: Tensor) -> None:
    model = network(name)
    expected = [kind(model).attribute(images[:6]) for kind in (ERF, DeadPixelMap)]
    model.to(device)
    for kind, its in zip((ERF, DeadPixelMap), expected, strict=True):
        close(kind(model).attribute(images[:6].to(device)), its, 1e-10)


@pytest.mark.parametrize("name", ["resnet", "swin"])
def test_float32_differs_by_few_flips(name: str, device: torch.device, images: Tensor) -> None:
    expected = DeadPixelMap(network(name)).attribute(images)
    model = network(name, torch.float32).to(device)
    close(DeadPixelMap(model).attribute(images.float()), expected, 2e-2)


def test_bfloat16_is_noise_around_the_map(device: torch.device, images: Tensor) -> None:
    expected = DeadPixelMap(network("resnet")).attribute(images, target="predicted")
    model = network("resnet", torch.float32).to(device)
    mine, statistics = DeadPixelMap(model, execution=Execution(precision="bfloat16")).attribute(
        images.float(), target="predicted", return_statistics=True
    )
    assert "bfloat16" in statistics.computed
    assert abs(float(mine.mean() / expected.mean()) - 1) < 0.1
    assert float(torch.corrcoef(torch.stack([mine.flatten(), expected.flatten()]))[0, 1]) > 0.9


def test_tf32_is_recorded(device: torch.device, images: Tensor) -> None:
    torch.backends.cudnn.allow_tf32 = True
    model = network("resnet", torch.float32).to(device)
    _, statistics = ERF(model).attribute(images[:6].float(), return_statistics=True)
    assert ("convolutions in TF32" in statistics.computed) == (device.type == "cuda")


def test_what_the_caller_gave_stays_where_it_was(
    device: torch.device, images: Tensor, snapshot: Any, assert_same: Any
) -> None:
    model = network("resnet", torch.float32).to(device).train()
    given = images[:6].float().to(device)
    copied = given.clone()
    before = snapshot(model)
    DeadPixelMap(model).attribute(given)
    assert_same(before, snapshot(model))
    assert given.device.type == device.type
    assert not given.requires_grad
    assert torch.equal(given, copied)
    assert {parameter.device.type for parameter in model.parameters()} == {device.type}


@pytest.mark.parametrize("execution", [Execution(), Execution.plain()], ids=["default", "plain"])
def test_nan_in_an_image_on_the_gpu_is_refused(
    execution: Execution, device: torch.device, images: Tensor
) -> None:
    given = images.clone()
    given[13, 1, 30, 30] = torch.nan
    model = network("resnet").to(device)
    with pytest.raises(ValueError, match="NaN or infinity in image 13"):
        ERF(model, "layer1", execution=execution).attribute(given.to(device).split(4))
    # Behind a ReLU the gradient of a NaN is 0.
    gated = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).double().to(device)
    with pytest.raises(ValueError, match="NaN or infinity in image 13"):
        DeadPixelMap(gated, execution=execution).attribute(given.to(device).split(4))


def test_pinned_images_and_a_model_on_the_cpu(device: torch.device, images: Tensor) -> None:
    model = network("resnet")
    expected = DeadPixelMap(model).attribute(images)
    close(DeadPixelMap(model).attribute(images.to(device)), expected, 1e-12)
    if device.type == "cuda":
        close(DeadPixelMap(model.to(device)).attribute(images.pin_memory().split(5)), expected, 1e-10)


def test_statistics_add_up_whatever_the_batches(device: torch.device) -> None:
    maps = torch.rand(37, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = StreamingStatistics(8)
    expected.update(maps)
    for size in (1, 5, 8, 16, 37):
        streaming = StreamingStatistics(8)
        for part in maps.to(device).split(size):
            streaming.update(part)
        mine, its = streaming.result(), expected.result()
        torch.testing.assert_close(mine.mean, its.mean, rtol=1e-14, atol=0)
        torch.testing.assert_close(mine.standard_error, its.standard_error, rtol=1e-10, atol=0)
        torch.testing.assert_close(mine.group_means, its.group_means, rtol=1e-14, atol=0)
        assert mine.group_sizes == its.group_sizes


def test_a_run_goes_on_from_its_state(device: torch.device, images: Tensor, tmp_path: Path) -> None:
    model = network("resnet").to(device)
    maps = SensitivityMaps(model, [FeatureUnit("layer2")])
    (whole,) = maps.attribute(images.split(4))
    file = StateFile(tmp_path / "state.pt", {"run": 1}, interval=4)
    maps.attribute(images.split(4), max_examples=12, checkpoint=file)
    (resumed,) = maps.attribute(images.split(4), checkpoint=StateFile(tmp_path / "state.pt", {"run": 1}))
    close(resumed.mean, whole.mean, 1e-14)
    assert resumed.n_images == 21


@pytest.mark.parametrize("method", [Saliency, IntegratedGradients])
def test_calibrated_and_debiased(method: Any, device: torch.device, images: Tensor) -> None:
    results = []
    for place in (torch.device("cpu"), device):
        model = network("resnet").to(place)
        settings = {"n_steps": 4} if method is IntegratedGradients else {}
        calibration = calibrate(method(model), images.split(7), target="predicted", **settings)
        debiased = DebiasedAttribution(method(model), calibration)
        given = images[:3].to(place)
        found = debiased.attribute(given, target=1, **settings)
        assert found.device.type == given.device.type
        results.append((calibration.statistics.mean, found.cpu()))
    for mine, its in zip(*reversed(results), strict=True):
        close(mine, its, 1e-8)


@pytest.mark.parametrize("strong", [False, True])
def test_attack(strong: bool, device: torch.device, images: Tensor) -> None:
    given = (images[:6] / 10 + 0.5).clamp(0, 1)
    results = []
    for place in (torch.device("cpu"), device):
        model = network("resnet").to(place)
        with torch.no_grad():
            labels = model(given.to(place)).argmax(1)
        options: dict[str, Any] = {"population_size": 10, "max_generations": 3, "seed": 1}
        sensitivity = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
        attack: OnePixelAttack = OnePixelAttack(model, 0.0, 1.0, **options)
        if strong:
            attack = StrongPixelAttack(model, sensitivity, 0.0, 1.0, **options)
        changed, report = attack.perturb(given.to(place), labels, return_report=True)
        assert changed.device.type == place.type
        assert ((changed.cpu() != given).any(1).flatten(1).sum(1) <= 1).all()
        results.append((report.success.tolist(), report.positions.tolist()))
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_noise(root, ("one", "two"), 40, (16, 16), 200)
    return root


@pytest.mark.parametrize("resident", [False, True])
def test_training(resident: bool, device: torch.device, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    from erfattr.training.data import TrainingImages, find_images
    from erfattr.training.hardware import Hardware
    from erfattr.training.recipes import find_recipe
    from erfattr.training.runs import train

    recipe = find_recipe("micro_object_cpu", epochs=2, batch_size=16)
    data = TrainingImages(find_images(folder), recipe).prepared(0)
    torch.manual_seed(0)
    model = DemoNet(2)
    accelerator = "cpu" if device.type == "cpu" else "gpu"
    precision = "32-true" if device.type == "cpu" else "bf16-mixed"
    here = Hardware(accelerator, 1, precision, resident=resident)  # type: ignore[arg-type]
    run = train(model, recipe, data, tmp_path, hardware=here)
    assert 0 < run.history[0]["loss"] < 5
    assert run.history[-1]["images_per_second"] > 0
    assert {parameter.device.type for parameter in run.model.parameters()} == {"cpu"}
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(weights[key], value) for key, value in run.model.state_dict().items())


class DrawsOnTheHost(DemoNet):
    """Leaves something out by a number that is drawn on the processor, as LayerDrop does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.0 if torch.rand(()) < 0.5 else 2.0)


@pytest.mark.parametrize("kind", [DemoNet, DrawsOnTheHost])
def test_a_graph_trains_as_the_plain_way_does(
    kind: type[DemoNet], device: torch.device, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lightning", reason="needs the extra train")
    from erfattr.training.data import TrainingImages, find_images
    from erfattr.training.hardware import Hardware
    from erfattr.training.recipes import find_recipe
    from erfattr.training.runs import train

    recipe = find_recipe("micro_object_cpu", epochs=3, batch_size=16)
    data = TrainingImages(find_images(folder), recipe).prepared(0)
    torch.manual_seed(0)
    model = kind(2)
    on_gpu = device.type == "cuda"
    plain, graphed = (
        Hardware("gpu" if on_gpu else "cpu", resident=True, cuda_graph=cuda_graph)
        for cuda_graph in (False, True)
    )
    expected = train(model, recipe, data, tmp_path / "plain", seed=1, hardware=plain)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = train(model, recipe, data, tmp_path / "graphed", seed=1, hardware=graphed)
    said = [str(warning.message) for warning in caught if "no CUDA graph" in str(warning.message)]
    refused = "no CUDA graph: the network draws random numbers on the processor; it is trained without"
    assert said == ([refused] if on_gpu and kind is DrawsOnTheHost else [])
    assert "forward" not in vars(run.model)
    for mine, its in zip(run.history, expected.history, strict=True):
        assert mine["loss"] == pytest.approx(its["loss"], rel=1e-2)
    for name, value in expected.model.state_dict().items():
        # Running statistics count every step once: capturing is no step.
        if name.endswith("num_batches_tracked"):
            assert torch.equal(run.model.state_dict()[name], value)
        if name.endswith("running_mean"):
            assert torch.allclose(run.model.state_dict()[name], value, atol=2e-2)


def test_two_threads_on_two_streams(device: torch.device, images: Tensor) -> None:
    model = network("resnet").to(device)
    expected = {layer: ERF(model, layer).attribute(images.split(4)) for layer in ("layer2", "layer4")}
    found: dict[str, Tensor] = {}

    def run(layer: str) -> None:
        stream = torch.cuda.Stream() if device.type == "cuda" else None
        with torch.cuda.stream(stream):
            found[layer] = ERF(model, layer).attribute(images.split(4))

    threads = [threading.Thread(target=run, args=(layer,)) for layer in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for layer, its in expected.items():
        close(found[layer], its, 1e-12)


def test_a_batch_too_large_for_the_memory_is_run_in_parts(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("needs a GPU's memory")
    model = torchvision.models.resnet50(weights=None).to(device).eval()
    images = torch.randn(128, 3, 224, 224, device=device)
    execution = Execution(crop=False)
    expected = ERF(model, "layer4", execution=execution).attribute(images.split(16))
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(3 * 2**30 / total)
    try:
        with pytest.warns(UserWarning, match="does not hold 128 images; they are run 64 at a time"):
            found = ERF(model, "layer4", execution=execution).attribute(images)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    close(found, expected, 2e-2)


def test_receptive_fields_do_not_depend_on_the_device(device: torch.device) -> None:
    for name in ("resnet", "swin"):
        model = network(name)
        expected = receptive_fields(model, (64, 64))
        mine = receptive_fields(model.to(device), (64, 64))
        assert {key: (field.size, field.stride, field.status) for key, field in mine.items()} == {
            key: (field.size, field.stride, field.status) for key, field in expected.items()
        }
    field = nan_probe(network("unet").to(device), "up", (64, 64))
    assert field.size == theoretical_receptive_field(network("unet"), "up", (64, 64)).size


@pytest.mark.slow
def test_compiled(device: torch.device, images: Tensor) -> None:
    model = network("resnet", torch.float32).to(device)
    expected = ERF(model, "layer2").attribute(images.float().split(7))
    mine = ERF(model, "layer2", execution=Execution(compile=True)).attribute(images.float().split(7))
    close(mine, expected, 2e-2)
