"""How names in docstrings and pages find what they name, inside this package and outside, without a network.

Inside: ``fit_gaussian`` or ``MapStatistics.mean`` is enough where one thing has that name; a name of
``erfattr.__all__`` comes before another of the same spelling. Outside: ``outside.toml`` says where the names
of PyTorch, Captum and others are documented. Inventories for intersphinx are written from it, so that the
build asks nobody for them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sphobjinv
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import erfattr

if sys.version_info >= (3, 11):
    import tomllib
else:  # Sphinx brings it there
    import tomli as tomllib

OUTSIDE = Path(__file__).with_name("outside.toml")


def write_inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write an inventory for each project of ``outside.toml``; return what ``intersphinx_mapping`` wants."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, outside in tomllib.loads(OUTSIDE.read_text(encoding="utf-8")).items():
        inventory = sphobjinv.Inventory()
        inventory.project, inventory.version = project, ""
        places = {name: outside["page"].format(name=name) for name in outside["names"]}
        for name, place in (places | outside.get("elsewhere", {})).items():
            inventory.objects.append(
                sphobjinv.DataObjStr(
                    name=name, domain="py", role="class", priority="1", uri=place, dispname="-"
                )
            )
        path = folder / f"{project}.inv"
        path.write_bytes(sphobjinv.compress(inventory.data_file()))
        mapping[project] = (outside["base"], str(path))
    return mapping


def _public() -> dict[str, str]:
    """Return the public names, and the full name that each is documented under."""
    values = {name: getattr(erfattr, name) for name in erfattr.__all__ if name != "__version__"}
    return {name: f"{value.__module__}.{value.__qualname__}" for name, value in values.items()}


def full_name(target: str, objects: dict[str, Any], public: dict[str, str], module: str = "") -> str | None:
    """Return the documented name that a short one means; None where none, or several, could be meant."""
    head, dot, rest = target.removeprefix("erfattr.").partition(".")
    if head in public and public[head] + dot + rest in objects:
        return public[head] + dot + rest
    meant = [name for name in objects if name.endswith(f".{target}")]
    near = [name for name in meant if module and name.startswith(module.rpartition(".")[0] + ".")]
    for names in (meant, near):
        if len(names) == 1:
            return names[0]
    return None


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    if node.get("refdomain") != "py":
        return None
    objects = env.get_domain("py").objects  # type: ignore[attr-defined]
    found = full_name(node["reftarget"], objects, app.erfattr_public, node.get("py:module") or "")  # type: ignore[attr-defined]
    if found is None:
        return None
    place = objects[found]
    return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, content, found)


def _skip(app: Sphinx, what: str, name: str, member: object, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples: the docstring of the class describes them."""
    return True if type(member).__name__ == "_tuplegetter" else None


def _picture(app: Sphinx, what: str, name: str, value: object, options: Any, lines: list[str]) -> None:
    """Show what a public name draws, where scripts/draw_pictures.py has drawn it."""
    short = name.rpartition(".")[2]
    path = f"images/api/{short}.png"
    if app.erfattr_public.get(short) == name and (Path(app.srcdir) / path).is_file():  # type: ignore[attr-defined]
        lines += ["", f".. image:: /{path}", f"   :alt: What {short} draws", ""]


def setup(app: Sphinx) -> dict[str, bool]:
    app.erfattr_public = _public()  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", _picture)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve, priority=400)  # before intersphinx
    return {"parallel_read_safe": True, "parallel_write_safe": True}
