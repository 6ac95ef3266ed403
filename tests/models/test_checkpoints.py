"""Checkpoint files: read however they are wrapped, or refused with what does not fit."""

from __future__ import annotations

import pickle
import random

import pytest
import torch
from torch import nn

from erfattr.models.demo import DEMO_WEIGHTS, DemoNet, demo_model
from erfattr.models.loading import load_model, weights_hash

# invariance


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "parallel", "half"])
def test_a_checkpoint_comes_back_however_it_is_wrapped(tmp_path, wrap):
    original = demo_model(weights=False, seed=5)
    state = original.state_dict()
    content = {
        "plain": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state, "optimizer": {"lr": 0.1}},
        "parallel": {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        "half": {name: value.half() if value.is_floating_point() else value for name, value in state.items()},
    }[wrap]
    torch.save(content, tmp_path / "weights.pt")
    model, info = load_model("demo", str(tmp_path / "weights.pt"))
    assert info.weights == "checkpoint file weights.pt"
    assert info.seed is None
    if wrap == "half":
        assert torch.equal(model.fc.weight, original.fc.weight.half().float())
        assert model.fc.weight.dtype == torch.float32
    else:
        assert info.weights_sha256 == weights_hash(original)


# errors


def test_a_checkpoint_that_does_not_fit(tmp_path):
    state = DemoNet(10).state_dict()
    del state["conv1.weight"]
    state["extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"weights: .*other\.pt does not fit the DemoNet: ") as raised:
        load_model("demo", tmp_path / "other.pt")
    text = str(raised.value)
    assert "1 missing (conv1.weight); 1 unexpected (extra); " in text
    assert (
        "2 other shapes (fc.weight is (10, 128) instead of (101, 128), fc.bias is (10,) instead of (101,))"
        in text
    )
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"122 missing \(conv1.weight, bn1.weight, bn1.bias, ...\); 2 unexp"):
        load_model("demo", tmp_path / "small.pt")


def test_files_that_are_no_checkpoint(tmp_path):
    (tmp_path / "garbage.pt").write_bytes(b"garbage")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "code.pt").write_bytes(pickle.dumps(random.Random, protocol=2))
    whole = DEMO_WEIGHTS.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save(DemoNet(), tmp_path / "whole_model.pt")
    for name in ("garbage", "empty", "code", "cut", "whole_model"):
        with pytest.raises(ValueError, match=rf"weights: .*{name}\.pt cannot be read as tensors alone"):
            load_model("demo", tmp_path / f"{name}.pt")
    for content in (torch.zeros(3), {"epoch": 3}, {0: torch.zeros(1)}, [torch.zeros(1)]):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"weights: expected a state dict in .*other\.pt, got "):
            load_model("demo", tmp_path / "other.pt")
