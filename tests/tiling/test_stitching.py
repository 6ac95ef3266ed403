"""Tiles put together: every size of tile gives the whole image, within the memory of a tile."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch
from torch import Tensor, nn

from erfattr import stitch, suggest_tiling, tiling_error
from erfattr.tiling.stitching import tiling_errors


def pyramid() -> nn.Module:
    """Down by 4, with ones and integers everywhere, so that sums are exact."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, stride=2, padding=1)
    )
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model.double()


IMAGES = torch.randint(0, 9, (2, 1, 61, 90), generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("tile", [16, (16, 40), (33, 17), (61, 16), 512, (60, 90)])
def test_every_tile_gives_the_whole_image(tile: int | tuple[int, int]) -> None:
    model = pyramid()
    tiling = suggest_tiling(model, (61, 90), in_channels=1)
    assert (tiling.halo, tiling.alignment, tiling.minimum_tile) == ((4, 4), (4, 4), (16, 16))
    assert torch.equal(stitch(model, IMAGES, tiling, tile), model(IMAGES))


def test_no_tile_is_larger_than_asked_for() -> None:
    seen: list[tuple[int, int]] = []
    model = pyramid()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    tiling = suggest_tiling(model, (61, 90), in_channels=1)
    seen.clear()
    stitch(model, IMAGES, tiling, (30, 21))
    # Rounded down to whole periods of 4.
    assert max(rows for rows, _ in seen) <= 28
    assert max(columns for _, columns in seen) <= 20
    assert len(seen) > 10
    # The last ones end at the border and are no slivers.
    assert min(rows for rows, _ in seen) > 28 - 8


def test_output_is_written_where_it_is_wanted() -> None:
    model = pyramid()
    tiling = suggest_tiling(model, (61, 90), in_channels=1)
    out = torch.zeros(2, 2, 15, 23, dtype=torch.float64)
    assert stitch(model, IMAGES, tiling, 20, out=out) is out
    assert torch.equal(out, model(IMAGES))
    with pytest.raises(ValueError, match=r"out: expected shape \(2, 2, 15, 23\), got \(1, 2, 15, 23\)"):
        stitch(model, IMAGES, tiling, 20, out=out[:1])


def test_layer_and_part_of_an_output() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = pyramid()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            found = self.body(x)
            return {"small": found, "flat": found.flatten(1)}

    model = Several()
    tiling = suggest_tiling(model.body, (61, 90), layer="0", in_channels=1)
    assert (tiling.halo, tiling.alignment) == ((1, 1), (1, 1))
    assert torch.equal(stitch(model.body, IMAGES, tiling, 20), model.body[0](IMAGES))  # type: ignore[index]
    tiling = suggest_tiling(model, (61, 90), in_channels=1, select="small")
    assert torch.equal(stitch(model, IMAGES, tiling, 20), model.body(IMAGES))


def test_error_over_the_halo_falls_to_nothing() -> None:
    model = pyramid()
    tiling = suggest_tiling(model, (61, 90), in_channels=1)
    errors = dict(tiling_errors(model, IMAGES, tiling))
    assert list(errors) == [(0, 0), (4, 4)]
    assert errors[0, 0].largest > 0.05
    assert errors[4, 4] == (0, 0)
    # By hand: relative to the largest value of the whole image.
    whole, parts = model(IMAGES), stitch(model, IMAGES, tiling.with_halo((0, 0)), (16, 24))
    expected = float((whole - parts).abs().max() / whole.max())
    assert tiling_error(model, IMAGES, tiling.with_halo((0, 0))).largest == pytest.approx(expected, rel=1e-12)


def test_caller_is_untouched_also_with_two_threads_and_after_an_error() -> None:
    model = pyramid().train()
    tiling = suggest_tiling(model, (61, 90), in_channels=1)
    given = IMAGES.clone()
    found: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda: found.append(stitch(model, given, tiling, 20))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[0], found[1])
    handle = model[1].register_forward_hook(lambda *_: 1 / 0)  # type: ignore[index]
    with pytest.raises(ZeroDivisionError):
        stitch(model, given, tiling, 20)
    handle.remove()
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(given, IMAGES)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"images": [1]}, TypeError, r"images: expected a tensor \(N, C, H, W\)"),
        ({"images": IMAGES[0]}, ValueError, r"images: expected \(N, C, H, W\), got shape \(1, 61, 90\)"),
        ({"images": IMAGES[:, :, :60]}, ValueError, "height that leaves 1 when divided by 4"),
        ({"tile_size": 15}, ValueError, "tile_size: expected at least 16 x 16, halo included, got 15 x 15"),
        ({"tile_size": 20.0}, TypeError, "tile_size: expected one integer"),
    ],
)
def test_errors(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    model = pyramid()
    tiling = suggest_tiling(model, (61, 90), in_channels=1)
    with pytest.raises(error, match=words):
        stitch(**{"model": model, "images": IMAGES, "tiling": tiling, **arguments})  # type: ignore[arg-type]


_LARGE = """
import hashlib, resource, sys, torch
from torch import nn
from erfattr import stitch, suggest_tiling
torch.set_num_threads(1)
def conv(given, wanted):
    layer = nn.Conv2d(given, wanted, 3, padding=1)
    nn.init.ones_(layer.weight); nn.init.zeros_(layer.bias)
    return layer
class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(1, 8), conv(8, 8), conv(16, 1)
        self.up = nn.Upsample(scale_factor=4)
    def forward(self, x):
        x = torch.remainder(self.a(x), 7)
        low = torch.remainder(self.b(nn.functional.max_pool2d(x, 4)), 7)
        return torch.remainder(self.c(torch.cat([x, self.up(low)], 1)), 7)
model = UNet().eval()
image = torch.randint(0, 9, (1, 1, 4096, 4096), generator=torch.Generator().manual_seed(0)).float()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "tiles":
    result = stitch(model, image, suggest_tiling(model, 4096, in_channels=1), 512)
else:
    with torch.no_grad():
        result = model(image)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(hashlib.sha256(result.numpy().tobytes()).hexdigest(), (after - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
def test_large_image_within_the_memory_of_a_tile() -> None:
    found = {}
    for way in ("tiles", "whole"):
        result = subprocess.run(
            [sys.executable, "-c", _LARGE, way], capture_output=True, text=True, check=True
        )
        digest, megabytes = result.stdout.split()
        found[way] = digest, int(megabytes)
    assert found["tiles"][0] == found["whole"][0]
    # The output is 64 MiB, a tile's largest map 16; the whole image needs 1.5 GiB.
    assert found["tiles"][1] < 300
    assert found["whole"][1] > 1000
