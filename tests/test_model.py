"""The hash of a model's weights, and random numbers that leave the global state as it was."""

from __future__ import annotations

import hashlib
import struct

import torch
from torch import nn

from erfattr._model import seeded, weights_hash

# closed form


def test_the_hash_is_that_of_names_dtypes_shapes_and_bytes():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.copy_(torch.tensor([-0.5]))
    expected = hashlib.sha256(
        b"bias torch.float32 (1,)\n"
        + struct.pack("<f", -0.5)
        + b"weight torch.float32 (1, 2)\n"
        + struct.pack("<ff", 1.0, 2.0)
    ).hexdigest()
    assert weights_hash(model) == expected


# independent oracle


def test_seeded_numbers_are_torchs_and_the_state_comes_back():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = torch.rand(2)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    with seeded(3):
        assert torch.equal(torch.rand(2), expected)
    assert torch.equal(torch.get_rng_state(), state)


# invariance


def test_the_hash_tells_values_names_and_shapes_apart_but_not_layouts():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    first = weights_hash(model)
    assert weights_hash(model.to(memory_format=torch.channels_last)) == first
    assert weights_hash(model.eval()) == first
    model[1].running_mean[2] += 1e-6
    assert weights_hash(model) != first
    renamed = nn.Sequential()
    renamed.a, renamed.b = nn.Linear(1, 1), nn.Linear(1, 1)
    swapped = nn.Sequential()
    swapped.b, swapped.a = renamed.b, renamed.a
    assert weights_hash(renamed) == weights_hash(swapped)
    swapped.b, swapped.a = renamed.a, renamed.b
    assert weights_hash(renamed) != weights_hash(swapped)
    assert weights_hash(nn.Linear(2, 3, bias=False)) != weights_hash(nn.Linear(3, 2, bias=False))
    assert weights_hash(nn.Linear(1, 1).half()) != weights_hash(nn.Linear(1, 1).bfloat16())


# caller untouched


def test_the_hash_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights_hash(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
