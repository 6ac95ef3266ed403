"""How names find what they name in the pages, without a network."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sphinx")
sphobjinv = pytest.importorskip("sphobjinv")
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def linking(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("linking")


OBJECTS: dict[str, None] = dict.fromkeys(
    [
        *("erfattr.metrics.relief.relief", "erfattr.metrics.sizes.radial_mass"),
        *("erfattr.attr.erf.ERF", "erfattr.attr.erf.ERF.attribute", "erfattr.robust.attacks.ERF.attribute"),
        *("erfattr.one.plan.Part", "erfattr.two.plan.Part"),
    ]
)
PUBLIC = {"relief": "erfattr.metrics.relief.relief", "ERF": "erfattr.attr.erf.ERF"}


@pytest.mark.parametrize(
    ("target", "module", "found"),
    [
        ("ERF", "", "erfattr.attr.erf.ERF"),
        ("erfattr.ERF.attribute", "", "erfattr.attr.erf.ERF.attribute"),  # the public one of two
        ("relief", "", "erfattr.metrics.relief.relief"),
        ("radial_mass", "", "erfattr.metrics.sizes.radial_mass"),  # not public, but alone
        ("Part", "", None),  # two have that name
        ("Part", "erfattr.two.other", "erfattr.two.plan.Part"),  # one of them is near
        ("mass", "", None),  # the end of a word is no name
    ],
)
def test_short_names_find_one_thing(linking: Any, target: str, module: str, found: str | None) -> None:
    assert linking.full_name(target, OBJECTS, PUBLIC, module) == found


def test_inventories_name_addresses_and_are_written_from_one_file(linking: Any, tmp_path: Path) -> None:
    mapping = linking.write_inventories(tmp_path)
    base, path = mapping["torch"]
    inventory = sphobjinv.Inventory(path)
    places = {each.name: base + each.uri_expanded for each in inventory.objects}
    assert places["torch.nn.Module"] == (
        "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module"
    )
    assert places["torch.nn.modules.module.Module"] == places["torch.nn.Module"]
    assert {"torch", "torchvision", "captum"} <= set(mapping)
