"""What these scripts share: the paper's numbers, options, rows that outlive an interruption, records."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from erfattr.report import environment, writing

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
    settings = json.loads(json.dumps(settings))
    path = folder / "rows.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows: dict[str, Row] = saved.get("rows", {}) if saved.get("settings") == settings else {}
    for name, make in makers.items():
        if name not in rows or not whole(rows[name]):
            rows[name] = make()
            with writing(folder) as stage:
                content = {"settings": settings, "rows": rows}
                (stage / "rows.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [rows[name] for name in makers]


def write_result(
    folder: Path, name: str, settings: Mapping[str, Any], rows: Sequence[Row], figure: Figure | None = None
) -> None:
    """Write the rows as CSV, rows and all that is needed to repeat the run as JSON, and the figure as PNG."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": {
            key: str(value) if isinstance(value, Path) else value for key, value in settings.items()
        },
        "environment": environment(),
        "rows": rows,
    }
    with writing(folder) as stage:
        with (stage / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        (stage / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if figure is not None:
            figure.savefig(stage / f"{name}.png", dpi=150)
    print(f"written to {folder}: {name}.csv, {name}.json" + (f", {name}.png" if figure is not None else ""))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, the first row being the headings."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def beside(value: float | None, paper: float | None, digits: int) -> str:
    """Return a value, the paper's, and the difference, as ``60.1 (paper 60.7, -0.6)``."""
    if value is None:
        return "-"
    if paper is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} (paper {paper:.{digits}f}, {value - paper:+.{digits}f})"
