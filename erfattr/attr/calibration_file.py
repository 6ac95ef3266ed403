"""Calibrations in files: what `DebiasedAttribution.calibrate` measured, with what it belongs to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from erfattr._checks import describe
from erfattr._files import read_whole, write_whole
from erfattr.attr.calibration import Calibration
from erfattr.metrics.statistics import MapSource, MapStatistics

_FORMAT = 1


def save_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration to a file, which is whole or not there.

    Args:
        calibration: ``debiased.sensitivity_map`` of what `DebiasedAttribution.calibrate` returned.
        path: The file; its folder must be there.

    Raises:
        TypeError: ``calibration`` is no `Calibration`.
        ValueError: the folder of ``path`` is missing, or ``path`` is a folder.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from captum.attr import Saliency
        >>> from erfattr.attr.calibration import calibrate
        >>> made = calibrate(Saliency(torch.nn.Flatten()), torch.ones(2, 1, 2, 2), target=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_calibration(made, Path(folder) / "saliency.pt")
        ...     load_calibration(Path(folder) / "saliency.pt").method
        'Saliency()'
    """
    if not isinstance(calibration, Calibration):
        raise TypeError(f"calibration: expected a Calibration, got {describe(calibration)}")
    file = Path(path)
    if file.is_dir() or not file.parent.is_dir():
        raise ValueError(f"path: expected a file in a folder that is there, got {str(file)!r}")
    write_whole(file, {"calibration_format": _FORMAT, **asdict(calibration)})


def load_calibration(path: str | Path) -> Calibration:
    """Read what `save_calibration` wrote.

    `DebiasedAttribution` refuses it for another model, method or settings.

    Args:
        path: The file.

    Returns:
        The `Calibration`.

    Raises:
        ValueError: the file is not there, cannot be read, is damaged, or is no calibration.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from captum.attr import Saliency
        >>> from erfattr.attr.calibration import calibrate
        >>> made = calibrate(Saliency(torch.nn.Flatten()), torch.ones(2, 1, 2, 2), target=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_calibration(made, f"{folder}/map.pt")
        ...     again = load_calibration(f"{folder}/map.pt")
        >>> again.method, bool((again.statistics.mean == made.statistics.mean).all())
        ('Saliency()', True)
    """
    saved = read_whole(Path(path), "calibration")
    if not isinstance(saved, dict) or saved.pop("calibration_format", None) != _FORMAT:
        raise ValueError(f"path: {str(path)!r} is no calibration that this version of erfattr wrote")
    try:
        statistics = MapStatistics(
            **{**saved["statistics"], "source": MapSource(**saved["statistics"]["source"])}
        )
        return Calibration(**{**saved, "statistics": statistics})
    except (KeyError, TypeError, ValueError) as error:
        # Of ours by its digest, yet not what this version makes of one.
        raise ValueError(f"path: {str(path)!r} cannot be read as a calibration: {_words(error)}") from error


def _words(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
