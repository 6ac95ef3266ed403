"""`write_report`: one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erfattr._checks import describe
from erfattr._files import environment, plain, writing_file
from erfattr.report.map_sentences import STRONG_GRID, WEAK_GRID
from erfattr.report.page.content import page_content
from erfattr.report.page.network import NetworkPage

_HERE = Path(__file__).parent


def write_report(
    path: str | Path,
    networks: NetworkPage | Sequence[NetworkPage],
    *,
    title: str | None = None,
    record: Mapping[str, Any] | None = None,
    same_images: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write one page about one or several networks, to look at and to send.

    The file needs nothing else: style, script and maps are inside, and its policy forbids every request.
    Maps are rounded to 0.1 % of each value, standard errors to 2.5 %.

    Args:
        path: The HTML file; its folder is made if it is not there.
        networks: What is shown, in order; of several the first is what the others are compared with.
        title: Of the page; by default the networks' names.
        record: What is needed to repeat the run; stands at the end of the page.
        same_images: All networks were measured on the same images in the same order, so what their maps
            have from the images in common cancels in the differences.
        overwrite: Replace a file that is there.

    Returns:
        The path.

    Raises:
        ImportError: jinja2 is not installed.
        TypeError: ``networks`` holds something else than `NetworkPage`.
        ValueError: no network, two of one name, or a file that is there.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from erfattr import ERF, demo_model, sample_images
        >>> from erfattr.report.map_report import analyse_map
        >>> _, statistics = ERF(demo_model()).attribute(sample_images(4, 64), return_statistics=True)
        >>> page = NetworkPage("demo", {"stride 32": analyse_map(statistics)})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_report(Path(folder) / "report.html", page)
        ...     path.stat().st_size < 100_000
        True
    """
    several = [networks] if isinstance(networks, NetworkPage) else list(networks)
    for network in several:
        if not isinstance(network, NetworkPage):
            raise TypeError(f"networks: expected NetworkPage, got {describe(network)}")
    names = [network.name for network in several]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"networks: expected networks of different names, got {', '.join(names) or 'none'}")
    target = Path(path)
    refuse_existing(target, overwrite)
    text = render(several, title=title or ", ".join(names), record=record or {}, same_images=same_images)
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing_file(target) as beside:
        beside.write_text(text, encoding="utf-8")
    return target


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise where a file would be lost.

    Raises:
        ValueError: it is there and ``overwrite`` is not set, or it is a folder.
    """
    if path.is_dir():
        raise ValueError(f"path: expected a file, got the folder {str(path)!r}")
    if path.exists() and not overwrite:
        raise ValueError(f"path: {str(path)!r} is there already; name another file, or set overwrite")


def refuse_without_jinja() -> None:
    """Raise where what makes pages of templates is missing.

    Raises:
        ImportError: jinja2 is not installed; the message says what to type.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise ImportError("write_report needs jinja2: pip install 'erfattr[report]'") from error


def render(
    networks: Sequence[NetworkPage], *, title: str, record: Mapping[str, Any], same_images: bool
) -> str:
    """Return the page as text."""
    refuse_without_jinja()
    import jinja2

    # What comes from outside (names of models, layers, files) is text wherever the template puts it, and a
    # name that the template misses is an error, not an empty place.
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {
        "sort_keys": False,
        "allow_nan": False,
    }  # rows keep their order
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page, data = page_content(networks, same_images=same_images)
    made = plain({**record, "environment": environment()})
    template = templates.get_template("page.html.jinja")
    return template.render(
        **page,
        title=title,
        record=json.dumps(made, indent=1, ensure_ascii=False),
        data=plain({**data, "record": made}),
        style=style,
        script=script,
        weak_grid=WEAK_GRID,
        strong_grid=STRONG_GRID,
        policy=(
            f"default-src 'none'; img-src data: blob:; style-src '{_digest(style)}'; "
            f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
        ),
    )


def _digest(text: str) -> str:
    """Return what a content security policy calls a text that may stand in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
