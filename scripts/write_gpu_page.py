"""Write docs/gpu.md: its template, filled in from what scripts/on_gpu.sh measured.

    python scripts/write_gpu_page.py                     # write the page anew
    python scripts/write_gpu_page.py --collect results   # take new results in first

Every number of the page stands in ``docs/results/gpu/*.json``. What has no file there, or no row, is said to
be not yet measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from erfattr._files import write_json, writing, writing_file

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "gpu"
PAGE = ROOT / "docs" / "gpu.md"
PARTS = ("tests", "speed", "attack", "training", "training_plain")
MISSING = "not yet measured"


def results() -> dict[str, Any]:
    """Return what each part wrote; ``None`` for one that was not measured."""
    paths = {name: RESULTS / f"{name}.json" for name in PARTS}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        for name, path in paths.items()
    }


def collect(folder: Path) -> None:
    """Copy the results of a run, each with the day on which it was written."""
    found = [name for name in PARTS if (folder / f"{name}.json").is_file()]
    if not found:
        sys.exit(f"--collect: expected {', '.join(PARTS)} as JSON files in {folder}, found none")
    RESULTS.mkdir(exist_ok=True)
    with writing(RESULTS) as stage:
        for name in found:
            path = folder / f"{name}.json"
            day = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).date().isoformat()
            content = json.loads(path.read_text(encoding="utf-8"))
            write_json(stage / path.name, {"date": day, **without_places(content)})


def without_places(value: Any) -> Any:
    """Return results with the last two parts of every absolute path alone: the rest is another machine's."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, str) and value.startswith("/"):
        return "/".join(Path(value).parts[-2:])
    return value


def speed_rows(speed: dict[str, Any] | None) -> Callable[..., list[dict[str, Any]]]:
    """Return what gives the rows of a model, a layer and a side (the beginning of its name)."""

    def chosen(model: str, layer: str | None = None, side: str = "") -> list[dict[str, Any]]:
        rows = [] if speed is None else speed["rows"]
        return [
            row
            for row in rows
            if row["model"] == model and layer in (None, row["layer"]) and row["side"].startswith(side)
        ]

    return chosen


def number(value: float | None, digits: int = 3) -> str:
    """Return a number of so many significant digits, never as a power of ten; words where there is none."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def page() -> str:
    """Return the page as the results make it."""
    jinja = Environment(
        loader=FileSystemLoader(ROOT / "docs" / "_templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters |= {"number": number, "median": statistics.median}
    found = results()
    template = jinja.get_template("gpu.md.jinja")
    return template.render(**found, rows=speed_rows(found["speed"]), missing=MISSING)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collect", type=Path, default=None, help="folder that scripts/on_gpu.sh wrote to")
    given = parser.parse_args()
    if given.collect is not None:
        collect(given.collect)
    with writing_file(PAGE) as beside:
        beside.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
