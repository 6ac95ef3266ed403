"""What processors of transformers say, as the images need it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from erfattr import image_settings, sample_images


def test_processors_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    vit = transformers.ViTImageProcessor(size={"height": 96, "width": 64}, image_mean=[0.1, 0.2, 0.3])
    assert image_settings(vit) == {"size": (96, 64), "mean": (0.1, 0.2, 0.3), "std": tuple(vit.image_std)}
    clip = transformers.CLIPImageProcessor(size={"shortest_edge": 80}, crop_size={"height": 48, "width": 48})
    assert image_settings(clip)["size"] == (48, 48)
    assert sample_images(2, **image_settings(clip)).shape == (2, 3, 48, 48)
    assert image_settings(SimpleNamespace(image_processor=clip)) == image_settings(clip)


def test_without_normalisation() -> None:
    processor = SimpleNamespace(size=32, do_normalize=False)
    assert image_settings(processor) == {"size": (32, 32), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize(
    ("processor", "error", "words"),
    [
        (SimpleNamespace(), TypeError, "expected an image processor with a size"),
        (SimpleNamespace(size={"longest_edge": 5, "shortest_edge": 3}), ValueError, "height and width, got"),
        (SimpleNamespace(size=5, rescale_factor=1 / 127.5), ValueError, "scaled by 1 / 255"),
    ],
)
def test_errors(processor: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        image_settings(processor)
