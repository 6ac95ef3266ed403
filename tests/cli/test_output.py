"""Results of another command stay where they are, unless they may go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erfattr.cli import main

SMALL = ["--size", "32", "--count", "4", "-q"]


def test_another_command_s_result_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["map", *SMALL, "-o", "here"]) == 0
    before = Path("here/result.json").read_bytes()
    # Its own result is made again, however it runs and whatever is asked of it.
    assert main(["map", *SMALL, "-o", "here", "--fail-if", "L1 < 0"]) in (0, 3)
    for command in (["map", "--seed", "1", *SMALL], ["debias", *SMALL], ["attack", *SMALL]):
        made = Path("here/result.json").read_bytes()
        capsys.readouterr()
        assert main([*command, "-o", "here"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(
            f"erfattr {command[0]}: error: --output: 'here' holds the result of 'erfattr map --model demo "
        )
        assert error.endswith("--overwrite replaces it, or choose another folder\n")
        assert Path("here/result.json").read_bytes() == made
    assert main(["map", "--seed", "1", *SMALL, "-o", "here", "--overwrite"]) == 0
    assert Path("here/result.json").read_bytes() != before


@pytest.mark.parametrize("content", ["{}", "no JSON", '{"command": "text"}', "[1]"])
def test_a_result_that_is_not_ours_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").write_text(content)
    assert main(["map", *SMALL, "-o", str(tmp_path)]) == 2
    assert "holds a result that is not erfattr's" in capsys.readouterr().err
    assert (tmp_path / "result.json").read_text() == content


def test_every_command_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("map", "debias", "attack"):
        assert main([command, *SMALL]) == 0
        record = json.loads(Path(f"erfattr-{command}/result.json").read_text())["record"]
        assert record["schema_version"] == 1
        assert record["command"][:2] == ["erfattr", command]
