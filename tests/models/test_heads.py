"""A new last layer: drawn anew where the number of classes differs, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from erfattr.models.demo import DemoNet
from erfattr.models.heads import replace_head


def test_a_head_of_another_size_is_drawn_anew_and_one_of_this_size_is_kept() -> None:
    model = DemoNet(10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    changed = replace_head(model, 3, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert changed.fc.weight.shape == (3, 128)
    assert torch.equal(changed.fc.weight, replace_head(model, 3, seed=1).fc.weight)
    assert not torch.equal(changed.fc.weight, replace_head(model, 3, seed=2).fc.weight)
    assert torch.equal(changed.layer4[1].conv2.weight, model.layer4[1].conv2.weight)
    kept = replace_head(model, 10).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_bad_heads() -> None:
    with pytest.raises(ValueError, match="model: expected one that ends in a linear layer, got a Conv2d"):
        replace_head(nn.Conv2d(3, 3, 1), 2)
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got 3"):
        replace_head(3, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classes: expected a positive integer, got 0"):
        replace_head(DemoNet(10), 0)
