"""What ``erfattr map`` writes is what the schema in the documentation says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erfattr.cli import main

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "result.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "words",
    [
        ("--count", "8", "--size", "64", "--layers", "layer2", "output"),
        ("--count", "1", "--size", "48", "80"),
        ("--model", "vgg11", "--weights", "none", "--count", "4", "--size", "64"),
    ],
)
def test_results_fit_the_schema(words: tuple[str, ...], tmp_path: Path) -> None:
    assert main(["map", *words, "-q", "-o", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(result, SCHEMA)
    result["record"]["schema_version"] = 2
    with pytest.raises(jsonschema.ValidationError, match="1 was expected"):
        jsonschema.validate(result, SCHEMA)
