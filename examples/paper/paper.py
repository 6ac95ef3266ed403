"""What these scripts share: the paper's numbers, options, rows that outlive an interruption, records."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from erfattr._files import environment, plain, write_json, writing
from erfattr.report.text_table import text_table

Row = dict[str, Any]

# Table 1, of networks pretrained on ImageNet. Unit (3, 3) is the paper's (4, 4), which it counts from 1.
_COLUMNS_1 = ("acc1", "trf", "sigma_x", "sigma_y", "r_squared")
TABLE_1: dict[str, dict[str, float]] = {
    name: dict(zip(_COLUMNS_1, numbers, strict=True))
    for name, *numbers in (
        ("resnet18", 69.758, 435, 76.534, 73.662, 0.908),
        ("resnet34", 73.314, 899, 96.148, 97.242, 0.785),
        ("resnet50", 76.130, 427, 64.820, 62.208, 0.945),
        ("resnet101", 77.374, 971, 60.061, 60.679, 0.937),
        ("resnext50_32x4d", 77.618, 427, 70.921, 67.679, 0.908),
        ("resnet152", 78.312, 1451, 60.589, 58.738, 0.930),
        ("wide_resnet50_2", 78.468, 427, 58.415, 60.676, 0.954),
        ("wide_resnet101_2", 78.848, 971, 56.900, 59.888, 0.944),
        ("resnext101_32x8d", 79.312, 971, 77.664, 77.047, 0.889),
    )
}

# Table 2, of the same networks fine-tuned on Caltech-101.
_COLUMNS_2 = ("validation_accuracy", "test_accuracy", "trf", "sigma_x", "sigma_y", "r_squared")
TABLE_2: dict[str, dict[str, float]] = {
    name: dict(zip(_COLUMNS_2, numbers, strict=True))
    for name, *numbers in (
        ("resnet18", 93.00, 91.83, 435, 68.439, 71.996, 0.953),
        ("resnet34", 93.95, 92.71, 899, 78.291, 81.658, 0.907),
        ("resnet101", 94.38, 92.71, 971, 57.916, 60.300, 0.933),
        ("wide_resnet50_2", 94.97, 94.31, 427, 57.862, 63.025, 0.963),
        ("resnet50", 94.82, 94.38, 427, 56.528, 59.245, 0.962),
        ("resnet152", 95.70, 94.60, 1451, 58.907, 60.345, 0.916),
        ("resnext50_32x4d", 95.04, 94.97, 427, 61.416, 63.959, 0.951),
        ("wide_resnet101_2", 95.33, 94.97, 971, 60.325, 64.184, 0.935),
        ("resnext101_32x8d", 96.50, 95.40, 971, 64.720, 67.788, 0.912),
    )
}

# Table 3: test accuracy in percent before and after kernel padding, means of three runs. The paper's printed
# differences are of numbers with more digits: 1.22, 1.05, 0.83.
TABLE_3: dict[str, tuple[float, float]] = {
    "resnet101": (95.28, 94.07),
    "wide_resnet101_2": (95.14, 94.09),
    "resnext101_32x8d": (95.58, 94.75),
}

# Table 4: epochs to 90 % of the micro-object task before and after kernel padding, means of five runs.
TABLE_4: dict[str, tuple[float, float]] = {
    "resnet101": (28.2, 10.2),
    "wide_resnet101_2": (28.0, 14.2),
    "resnext101_32x8d": (21.8, 8.8),
}


def options(
    description: str, output: str, *, data: str | None = None, weights: bool = False
) -> argparse.ArgumentParser:
    """Return a parser of the options every script has; ``data`` says what the folder of images is."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if data is not None:
        parser.add_argument("--data", type=Path, default=None, help=data)
    if weights:
        parser.add_argument(
            "--weights",
            default="IMAGENET1K_V1",
            help="name of torchvision's weights, found through TORCH_HOME or downloaded, or none for a "
            "seeded random initialisation (default: %(default)s)",
        )
    parser.add_argument(
        "--scale",
        choices=("paper", "cpu"),
        default="cpu",
        help="the paper's size, or what two cores do in minutes (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("paper-results", output), help="folder (default: %(default)s)"
    )
    return parser


def resumed_rows(
    folder: Path,
    settings: Mapping[str, Any],
    makers: Mapping[str, Callable[[], Row]],
    whole: Callable[[Row], bool] = bool,
) -> list[Row]:
    """Make every row that an earlier run with the same settings has not made; save each as it comes.

    Args:
        folder: Where ``rows.json`` lies.
        settings: What all rows depend on; rows of other settings are made anew.
        makers: By name, what makes a row.
        whole: Whether a saved row needs no second try.
    """
    settings = plain(settings)  # as it was read and will be
    path = folder / "rows.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows: dict[str, Row] = saved.get("rows", {}) if saved.get("settings") == settings else {}
    for name, make in makers.items():
        if name not in rows or not whole(rows[name]):
            rows[name] = make()
            with writing(folder) as stage:
                write_json(stage / "rows.json", {"settings": settings, "rows": rows})
    return [rows[name] for name in makers]


def write_result(
    folder: Path, name: str, settings: Mapping[str, Any], rows: Sequence[Row], figure: Figure | None = None
) -> None:
    """Write the rows as CSV, rows and all that is needed to repeat the run as JSON, and the figure as PNG."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": _command(),
        "commit": _COMMIT,
        "machine": _machine(),
        "settings": settings,
        "environment": environment(),
        "rows": rows,
    }
    with writing(folder) as stage:
        with (stage / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        write_json(stage / f"{name}.json", record)
        if figure is not None:
            figure.savefig(stage / f"{name}.png", dpi=150)
    print(f"written to {folder}: {name}.csv, {name}.json" + (f", {name}.png" if figure is not None else ""))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, the first row being the headings."""
    print(text_table(rows))


def beside(value: float | None, paper: float | None, digits: int) -> str:
    """Return a value, the paper's, and the difference, as ``60.1 (paper 60.7, -0.6)``."""
    if value is None:
        return "-"
    if paper is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} (paper {paper:.{digits}f}, {value - paper:+.{digits}f})"


def _command() -> str:
    """Return the command line; of absolute paths the last part, which is all that another machine has."""
    words = ["python", f"examples/paper/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in words)


def _commit() -> str | None:
    """Return the commit of the checkout that this file lies in, with what was changed since said."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=, with changes"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout: an installed copy
        return None
    return said.stdout.strip()


def _machine() -> str:
    """Return the kind of machine, in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([f"{os.cpu_count()} cores of {cpu}", *gpus])


# Read as the script begins: a long run is of the code that it loaded, whatever is committed meanwhile.
_COMMIT = _commit()
