"""Where models come from: the package itself, torchvision, timm, a function of one's own."""

from __future__ import annotations

import importlib
import operator
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from erfattr._checks import describe, suggest
from erfattr.datasets.preprocessing import IMAGENET_MEAN, IMAGENET_STD, constants_for
from erfattr.models.checkpoints import load_checkpoint
from erfattr.models.demo import DEMO_WEIGHTS, DemoNet

Constants = tuple[float, ...]
Weights = str | Path | None


@dataclass(frozen=True)
class Loaded:
    """A model as its source gave it: where its weights are from, whether they are random, what it expects.

    ``channels`` is ``None`` where the source does not say it.
    """

    model: nn.Module
    weights: str
    random: bool
    mean: Constants = IMAGENET_MEAN
    std: Constants = IMAGENET_STD
    size: int | tuple[int, int] = 224
    channels: int | None = None


class Source(NamedTuple):
    """A place that models come from.

    Attributes:
        form: What the names of its models look like, in words.
        has: Whether a name is of this form.
        load: Takes name, weights and whether to show the progress of a download.
    """

    form: str
    has: Callable[[str], bool]
    load: Callable[[str, Weights, bool], Loaded]


def source_of(name: str) -> Source:
    """Return the source of the models that have such names.

    Raises:
        ValueError: no source has; the nearest names are suggested.
    """
    for source in SOURCES:
        if source.has(name):
            return source
    raise _unknown(name)


def _unknown(name: str) -> ValueError:
    *forms, last = (source.form for source in SOURCES)
    nearest = suggest(name, ["demo", *torchvision_names()])
    return ValueError(f"name: expected {', '.join(forms)} or {last}, got {name!r}{nearest}")


def _from_package(_name: str, weights: Weights, _show_progress: bool) -> Loaded:
    if weights is None or weights == "DEFAULT":
        model = DemoNet()
        load_checkpoint(model, DEMO_WEIGHTS)
        return Loaded(model, "shipped with erfattr, trained on Caltech-101", random=False, channels=3)
    return _from_builder(DemoNet, weights, known=("none", "DEFAULT"), channels=3)


def _from_torchvision(name: str, weights: Weights, show_progress: bool) -> Loaded:
    import torchvision.models

    if name not in torchvision_names():
        if name in torchvision.models.list_models():
            raise ValueError(f"name: expected a classification or segmentation model, got {name!r}")
        raise _unknown(name)
    options: dict[str, Any] = {}
    if name in torchvision.models.list_models(module=torchvision.models.segmentation):
        options["weights_backbone"] = None  # by default it is downloaded, also for a random initialisation
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # the default warns that it will change

    enum = torchvision.models.get_model_weights(name).__members__
    default = enum.get("DEFAULT")
    expected = _preprocessing(default) if default is not None else {"channels": 3}
    if weights is None and default is None:
        raise ValueError(f"weights: torchvision has none for {name!r}; give a checkpoint file or 'none'")
    owner, _, member = str("DEFAULT" if weights is None else weights).rpartition(".")
    if member in enum and owner in ("", enum[member].__class__.__name__):
        chosen = enum[member]
        try:
            model = torchvision.models.get_model(name, weights=chosen, progress=show_progress)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise _not_here(str(chosen), chosen.url, error) from error
        return Loaded(model, f"torchvision {chosen}", random=False, **_preprocessing(chosen))
    return _from_builder(
        lambda: torchvision.models.get_model(name, weights=None, **options),
        weights,
        known=("none", *enum),
        **expected,
    )


def torchvision_names() -> list[str]:
    """Return torchvision's networks of classification and segmentation."""
    import torchvision.models

    modules = (torchvision.models, torchvision.models.segmentation)
    return [name for module in modules for name in torchvision.models.list_models(module=module)]


def _preprocessing(weights: Any) -> dict[str, Any]:
    transforms = weights.transforms()
    size = getattr(transforms, "crop_size", None) or transforms.resize_size
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    return {"mean": mean, "std": std, "size": int(size[0]), "channels": len(mean)}


def _not_here(weights: str, url: str, error: BaseException) -> Exception:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    reason = f"{type(error).__name__}: {error}"
    if file.exists():
        return ValueError(f"weights: {weights} in {file} cannot be read ({reason}); replace the file")
    return FileNotFoundError(
        f"weights: {weights} cannot be downloaded from {url} ({reason}); "
        f"put the file {file.name} into the folder {folder}, or set TORCH_HOME"
    )


def _from_timm(name: str, weights: Weights, _show_progress: bool) -> Loaded:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name!r} needs timm, which is not installed: pip install timm") from error
    architecture = name.removeprefix("timm/")
    if not timm.is_model(architecture):
        raise ValueError(
            f"name: timm has no model {architecture!r}{suggest(architecture, timm.list_models())}"
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture.partition('.')[0]}.*")]
    if weights in (None, "DEFAULT") and not tags:
        raise ValueError(f"weights: timm has none for {architecture!r}; give a checkpoint file or 'none'")
    if weights in (None, "DEFAULT", *tags):
        full = architecture if weights in (None, "DEFAULT") else f"{architecture.partition('.')[0]}.{weights}"
        try:
            model = timm.create_model(full, pretrained=True)
        except (OSError, RuntimeError) as error:
            raise _not_in_hub(full, timm.get_pretrained_cfg(full), error) from error
        loaded = Loaded(model, f"timm {full}, pretrained", random=False)
    else:
        loaded = _from_builder(
            lambda: timm.create_model(architecture, pretrained=False), weights, known=("none", *tags)
        )
    expected: dict[str, Any] = timm.data.resolve_model_data_config(loaded.model)  # type: ignore[no-untyped-call,attr-defined,unused-ignore]
    channels, height, width = map(int, expected["input_size"])
    mean, std = constants_for(channels, expected["mean"], expected["std"])
    size = height if height == width else (height, width)
    return Loaded(loaded.model, loaded.weights, loaded.random, mean, std, size, channels)


def _not_in_hub(name: str, source: Any, error: BaseException) -> Exception:
    from huggingface_hub.constants import HF_HUB_CACHE

    return FileNotFoundError(
        f"weights: timm's {name} cannot be downloaded ({type(error).__name__}: {error}); fetch the file "
        f"model.safetensors of https://huggingface.co/{source.hf_hub_id} elsewhere and give weights= its "
        f"path, or fill the folder {HF_HUB_CACHE}"
    )


def _from_factory(name: str, weights: Weights, _show_progress: bool) -> Loaded:
    path, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*path.split("."), *attribute.split(".")]):
        raise ValueError(f"name: expected 'module.path:factory', got {name!r}")
    module = _imported(path)
    try:
        factory = operator.attrgetter(attribute)(module)
    except AttributeError as error:
        raise ValueError(
            f"name: module {path!r} has no {attribute!r}{suggest(attribute, dir(module))}"
        ) from error
    if not callable(factory):
        raise TypeError(
            f"name: expected {name!r} to be a function that returns a module, got {describe(factory)}"
        )

    def build() -> nn.Module:
        model = factory()
        if not isinstance(model, nn.Module):
            raise TypeError(f"name: expected {name!r} to return a torch module, got {describe(model)}")
        return model

    if weights is None:
        return Loaded(build(), f"as returned by {name}", random=True)  # or not: it alone knows
    return _from_builder(build, weights, known=("none",))


def _imported(path: str) -> ModuleType:
    here = os.getcwd()
    sys.path.insert(0, here)  # as `python -m` does: a console script does not search the working folder
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise ValueError(f"name: no module {path!r} is installed or in {here}") from error
    finally:
        sys.path.remove(here)


def _from_builder(
    build: Callable[[], nn.Module], weights: Weights, *, known: tuple[str, ...], **expected: Any
) -> Loaded:
    """Initialise at random, or load a checkpoint file; ``known`` are the names that would have been good."""
    if weights == "none":
        return Loaded(build(), "random initialisation", random=True, **expected)
    path = Path(weights or "")
    if not path.is_file():
        raise ValueError(
            f"weights: expected one of {', '.join(known)} or a checkpoint file, got {str(weights)!r}"
            f"{suggest(str(weights), known)}"
        )
    model = build()
    load_checkpoint(model, path)
    return Loaded(model, f"checkpoint file {path.name}", random=False, **expected)


# The first that has a name loads it. A new source is one entry here.
SOURCES = (
    Source("'demo'", lambda name: name == "demo", _from_package),
    Source("a torchvision model", lambda name: not set(name) & {"/", ":"}, _from_torchvision),
    Source("'timm/NAME'", lambda name: name.startswith("timm/"), _from_timm),
    Source("'module.path:factory'", lambda name: ":" in name, _from_factory),
)
