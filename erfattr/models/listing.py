"""The names that `load_model` takes."""

from __future__ import annotations


def model_names(part: str = "") -> list[str]:
    """Return the networks with a part in their name, sorted; timm's only where a part is given.

    Args:
        part: In any case.

    Example:
        >>> model_names("demo")
        ['demo']
    """
    from erfattr.models._sources import torchvision_names

    names = ["demo", *torchvision_names()]
    if part:
        names += [f"timm/{name}" for name in _timm_names()]
    return sorted(name for name in names if part.lower() in name.lower())


def others() -> str:
    """Return a sentence about the networks that `model_names` does not list."""
    count = len(_timm_names())
    said = (
        "timm is not installed" if not count else f"timm/NAME: {count:,} more, listed by a part of their name"
    )
    return f"{said}; module.path:factory: your own"


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        return []
    names: list[str] = timm.list_models()
    return names
