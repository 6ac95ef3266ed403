"""Every answer of the questions' page runs, in the order of the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faq.md"
ANSWERS = re.findall(
    r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def test_every_question_has_an_answer_that_runs() -> None:
    assert len(ANSWERS) >= 16
    for question, answer in ANSWERS:
        assert answer.count("```python") == 1, question


@pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients")
def test_answers_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for question, answer in ANSWERS:
        (code,) = re.findall(r"```python\n(.*?)```", answer, re.DOTALL)
        exec(compile(code, question, "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert "(2, 2) (2, 2) True" in printed  # the tiling
    assert "(96.0, 96.0)" in printed  # the centre of ResNet-18's unit
    assert "True" in printed  # the field by hand is the field
    assert "(1, 48, 8, 8)" in printed  # Swin's rows and columns
    assert "(1, 24, 8, 8)" in printed  # those of Hugging Face
    assert names["smooth"].shape == (2, 3, 64, 64)
    assert names["used"] < names["trf"]
    assert names["map_of_tokens"].shape == (32, 32)
    assert names["without_the_grid"].shape == (2, 3, 64, 64)
