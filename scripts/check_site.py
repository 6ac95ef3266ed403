"""Check that the built pages load nothing from outside, and that their own links lead somewhere.

    python scripts/check_site.py docs/_build/html

A page opened from disk, without a network, must be whole: formulas, styles, pictures and search.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser loads by itself: tag and attribute. A link is followed by a person alone.
_LOADED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("img", "src"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("video", "src"),
}
# Links of the head that say something about the page and load nothing.
_SAYS = {"author", "canonical", "copyright", "index", "next", "prev", "search", "genindex", "top", "up"}
_IN_STYLE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        says = tag == "link" and set(given.get("rel", "").split()) <= _SAYS
        self.loaded += [given[name] for name in given if (tag, name) in _LOADED and not says]


def problems(site: Path) -> Iterator[str]:
    """Yield a line for everything that is loaded from outside, and for every link that leads nowhere."""
    pages: dict[Path, _Page] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    for path, page in pages.items():
        where = path.relative_to(site)
        for address in page.loaded:
            if address.startswith(("http:", "https:", "//")):
                yield f"{where}: loads {address}"
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not target.exists():
                yield f"{where}: {address} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
                yield f"{where}: {address} leads to no such place"
    for path in sorted(site.rglob("*.css")):
        for address in _IN_STYLE.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: loads {address}"


def main() -> None:
    """Print what is wrong; exit with 1 if anything is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path)
    site: Path = parser.parse_args().site.resolve()
    if not (site / "index.html").is_file():
        sys.exit(f"site: expected a folder with index.html, got {site.name}")
    found = list(problems(site))
    print("\n".join(found) or f"{len(list(site.rglob('*.html')))} pages load nothing from outside")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
