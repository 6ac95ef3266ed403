"""What a Hugging Face image processor says of the images that its network wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from erfattr._checks import as_numbers, describe, is_int


class ImageSettings(TypedDict):
    """Size and constants, as `sample_images` and `ImageFiles` take them."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def image_settings(processor: Any) -> ImageSettings:
    """Return size, mean and standard deviation of a processor's images.

    Args:
        processor: What ``AutoImageProcessor.from_pretrained`` returns, or a processor that holds one as its
            ``image_processor``.

    Returns:
        ``size`` (H, W) in pixels: the crop's, where there is one; ``mean`` and ``std`` of the channels on the
        scale 0 to 1 (0 and 1 where it does not normalise). For ``sample_images(16, **image_settings(p))``.

    Raises:
        TypeError: ``processor`` has no ``size``.
        ValueError: a size that is not fixed, or constants of another scale.

    Example:
        >>> from types import SimpleNamespace
        >>> processor = SimpleNamespace(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224},
        ...     do_center_crop=True, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.25] * 3)
        >>> image_settings(processor)
        {'size': (224, 224), 'mean': (0.5, 0.5, 0.5), 'std': (0.25, 0.25, 0.25)}
    """
    processor = getattr(processor, "image_processor", processor)
    size = getattr(processor, "size", None)
    if getattr(processor, "do_center_crop", False):
        size = getattr(processor, "crop_size", None) or size
    if size is None:
        raise TypeError(f"processor: expected an image processor with a size, got {describe(processor)}")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", False):
        mean = as_numbers("processor.image_mean", processor.image_mean)  # type: ignore[assignment]
        std = as_numbers("processor.image_std", processor.image_std)  # type: ignore[assignment]
    factor = getattr(processor, "rescale_factor", None)
    if factor is not None and abs(factor * 255 - 1) > 1e-6:
        raise ValueError(f"processor: expected images scaled by 1 / 255 before its constants, got {factor:g}")
    return ImageSettings(size=_pair(size), mean=mean, std=std)


def _pair(size: Any) -> tuple[int, int]:
    if is_int(size):
        return int(size), int(size)
    # A dictionary, or since version 5 an object with the same names.
    names = ("height", "width", "shortest_edge", "longest_edge")
    height, width, shortest, longest = (
        size.get(name) if isinstance(size, Mapping) else getattr(size, name, None) for name in names
    )
    if height and width:
        return int(height), int(width)
    if shortest and not longest:
        return int(shortest), int(shortest)
    if isinstance(size, (tuple, list)) and len(size) == 2:
        return int(size[0]), int(size[1])
    raise ValueError(f"processor: expected a size with height and width, got {describe(size)}")
