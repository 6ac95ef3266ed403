"""Write docs/reproduction.md: its template, filled in from the result files of examples/paper.

    python scripts/write_reproduction.py                            # write the page anew
    python scripts/write_reproduction.py --collect paper-results    # take new results in first
    python scripts/write_reproduction.py --check                    # only say whether it is up to date

Every measured number of the page stands in ``docs/results/*.json``, as the scripts wrote it; every number of
the paper in ``examples/paper/paper.py``. The template adds words.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from erfattr._files import writing, writing_file

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
TEMPLATE = "reproduction.md.jinja"
PAGE = ROOT / "docs" / "reproduction.md"
IMAGES = ROOT / "docs" / "images"
# Results whose figures the page shows.
SHOWN = ("claims", "figure1", "figure4", "figure5")


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with so many digits after the point, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """Return it with its sign."""
    return "-" if value is None else f"{value:+.{digits}f}"


def p_value(value: float | None) -> str:
    """Return two significant digits."""
    return "-" if value is None else f"{value:.2g}"


def results() -> dict[str, Any]:
    """Return the content of every result file by its name."""
    files = sorted(RESULTS.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def collect(folder: Path) -> None:
    """Copy ``NAME/*.json`` to ``docs/results/NAME.json``, and the figures that the page shows."""
    with writing(RESULTS) as results_stage, writing(IMAGES) as images_stage:
        for path in sorted(folder.glob("*/*.json")):
            if path.name != "rows.json":  # what a stopped script goes on from
                shutil.copyfile(path, results_stage / f"{path.parent.name}.json")
        for name in SHOWN:
            figure = folder / name / f"{name}.png"
            if figure.is_file():
                small = Image.open(figure).convert("RGB").quantize(128)
                small.save(images_stage / f"reproduction_{name}.png", optimize=True)


def page() -> str:
    """Return the page as the results and the template make it."""
    sys.path.insert(0, str(ROOT / "examples" / "paper"))
    import paper
    import verdicts

    environment = Environment(
        loader=FileSystemLoader(ROOT / "docs" / "_templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"number": number, "signed": signed, "p_value": p_value}
    return environment.get_template(TEMPLATE).render(**results(), paper=paper, rules=verdicts.RULES)


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is old")
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="of the scripts' results")
    options = parser.parse_args()
    if options.collect is not None:
        collect(options.collect)
    made = page()
    if not options.check:
        with writing_file(PAGE) as beside:
            beside.write_text(made, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != made:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not what the results make of its template: run {sys.argv[0]}")


if __name__ == "__main__":
    main()
