"""What is listed can be loaded."""

from __future__ import annotations

import pytest

from erfattr import load_model
from erfattr.models.listing import model_names, others


def test_names_are_those_that_load() -> None:
    assert model_names("squeezenet1")[:2] == ["squeezenet1_0", "squeezenet1_1"]
    for name in ("squeezenet1_0", "demo"):
        assert name in model_names()
        load_model(name, "none")


def test_timm_is_listed_by_a_part() -> None:
    pytest.importorskip("timm", reason="needs timm")
    assert "timm/convnext_tiny" in model_names("convnext_tiny")
    assert not any(name.startswith("timm/") for name in model_names())
    assert others().startswith("timm/NAME: ")
