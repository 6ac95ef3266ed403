"""What commands say of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erfattr.cli import main
from erfattr.cli._main import command_parser
from erfattr.cli._record import print_table, print_written, typed_command


@pytest.mark.parametrize(
    ("words", "positional"),
    [
        (("map",), None),
        (("map", "--layers", "conv1", "output", "--unit", "3,4", "--target", "5", "--plain"), None),
        (("debias", "a.png", "b.png", "--mode", "global", "--strict"), "image"),
        (("attack", "--reach", "7", "--map", "maps/output.npy", "--fraction", "0.1"), None),
    ],
)
def test_typed_command_gives_the_same_options(words: tuple[str, ...], positional: str | None) -> None:
    options = command_parser().parse_args(words)
    typed = typed_command(options, positional)
    assert typed[:2] == ["erfattr", words[0]]
    assert command_parser().parse_args(typed[1:]) == options


def test_typed_command_leaves_out_what_was_not_given() -> None:
    typed = typed_command(command_parser().parse_args(["debias", "a.png"]), "image")
    assert typed[2:5] == ["a.png", "--model", "demo"]
    assert {"--weights", "--strict", "--image", "--command"}.isdisjoint(typed)


def test_written_files_are_listed_with_their_folder(capsys: pytest.CaptureFixture[str]) -> None:
    print_written(Path("out"), ["a.png", "result.json"])
    assert capsys.readouterr().out == f"written to out:\n  {Path('out/a.png')}\n  {Path('out/result.json')}\n"


SCHEMA = Path(__file__).parents[2] / "docs" / "result.schema.json"


@pytest.mark.parametrize(
    "words",
    [
        ("--count", "8", "--size", "64", "--layers", "layer2", "output"),
        ("--count", "1", "--size", "48", "80"),
        ("--model", "vgg11", "--weights", "none", "--count", "4", "--size", "64"),
    ],
)
def test_results_fit_the_schema(words: tuple[str, ...], tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert main(["map", *words, "-q", "-o", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(result, schema)
    result["record"]["schema_version"] = 2
    with pytest.raises(jsonschema.ValidationError, match="1 was expected"):
        jsonschema.validate(result, schema)


def test_a_table_is_drawn_on_a_terminal_with_brackets_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich", reason="needs rich")
    rows = [["layer", "size"], ["blocks[0]", "7"], ["[bold]x", "[/]"]]
    print_table(rows)
    assert capsys.readouterr().out == "layer      size\nblocks[0]  7\n[bold]x    [/]\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(rows)
    drawn = capsys.readouterr().out
    assert all(cell in drawn for row in rows for cell in row)
