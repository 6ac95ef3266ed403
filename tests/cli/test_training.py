"""What ``erfattr train`` and ``erfattr compare`` say of input that does not serve."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from erfattr.cli import main

pytest.importorskip("lightning", reason="needs the extra train")


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--recipe", "micro_objekt"), "recipe: expected one of caltech101_finetune"),
        (("train", "--recipe", "micro_object", "--variant", "paded"), "got 'paded'; nearest: padded"),
        (("train", "--recipe", "micro_object", "--set", "epoch=2"), "got 'epoch'; nearest: epochs"),
        (
            ("train", "--recipe", "micro_object", "--set", "epochs"),
            "--set: expected FIELD=VALUE, got 'epochs'",
        ),
        (("train", "--recipe", "micro_object", "--set", "task=x"), "--set: expected a number, null or JSON"),
        (("train", "--recipe", "micro_object", "--model", "resnet19"), "resnet18"),
        (("compare", "--recipe", "micro_object", "--seeds", 1), "--seeds: expected 2 or more, got 1"),
        (("compare", "--recipe", "micro_object", "--variants", "original", "padd"), "nearest: padded"),
    ],
)
def test_bad_input_is_said_in_one_line_and_nothing_is_written(
    words: tuple[object, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir()
    for index in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    assert run(*words, "--data", "data") == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert error[0].startswith(f"erfattr {words[0]}: error: ")
    assert message in error[0]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--recipe", "micro_object", "--data", tmp_path, "--output", tmp_path / "out") == 2
    assert "holds no file ending in" in capsys.readouterr().err
