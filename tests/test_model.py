"""The hash of a model's weights, what a pass leaves as it was, and the gradient with respect to images."""

from __future__ import annotations

import contextlib
import hashlib
import struct

import pytest
import torch
from torch import Tensor, nn

from erfattr import receptive_fields
from erfattr._model import attributes_kept, gradient_of, seeded, weights_hash

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


class Caching(nn.Module):
    """Keeps what it has computed, as relative position biases do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.LSTM(4, 4, batch_first=True)
        self.cache: dict[str, Tensor] = {"before": torch.ones(1)}
        self.seen: list[int] = []
        self.runs = 0

    def forward(self, images):
        self.runs += 1
        self.seen.append(len(images))
        value = self.first(images)
        self.cache[str(value.device)] = value
        value = self.second(value.mean(3).mT)[0]
        if self.runs > 1:
            raise RuntimeError("half way")
        return value


@pytest.mark.parametrize("runs", [0, 1])
def test_attributes_and_what_is_in_them_come_back(runs):
    model = Caching()
    model.runs = runs
    cache, seen = model.cache, model.seen
    before = [dict(vars(module)) for module in model.modules()]
    with contextlib.suppress(RuntimeError, ValueError), attributes_kept(model):
        model(torch.rand(2, 3, 8, 8))
    receptive_fields(model, 8, probe=False)
    for module, attributes in zip(model.modules(), before, strict=True):
        assert vars(module) == attributes
    assert (model.cache is cache, model.seen is seen, list(cache), seen) == (True, True, ["before"], [])
    assert cache["before"].tolist() == [1]


class FromTokens(nn.Module):
    """A batch normalisation before a map that becomes tokens and a map again."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, images):
        value = self.norm(images)
        tokens = value.flatten(2).transpose(1, 2).contiguous() * torch.arange(8.0, dtype=images.dtype)
        return tokens.transpose(1, 2).view(value.shape).square()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_one_image_is_that_in_a_batch(dtype):
    """PyTorch's own is wrong behind this batch normalisation, whatever the operators around it."""
    torch.manual_seed(0)
    model = FromTokens().to(dtype).eval()
    images = torch.rand(2, 8, 5, 5, dtype=dtype)
    found = []
    for count in (1, 2):
        leaf = images[:count].clone().requires_grad_(True)
        found.append(gradient_of(model(leaf)[:, :, 2, 2].sum(), leaf)[0])
    direction = torch.rand(8, 5, 5, dtype=dtype)
    assert torch.allclose(found[0], found[1], rtol=1e-5)
    with torch.no_grad():
        ends = [model(images[:1] + step * direction)[:, :, 2, 2].sum() for step in (1e-3, -1e-3)]
    assert float((found[0] * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-3, rel=1e-2)


def test_what_does_not_depend_on_the_images_has_no_gradient():
    leaf = torch.rand(1, 3, 4, 4, requires_grad=True)
    assert gradient_of(leaf.detach().sum(), leaf) is None
    assert gradient_of(torch.ones(1, requires_grad=True).sum(), leaf) is None
