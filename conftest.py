"""The same answer every time: how tests and doctests draw random numbers."""

from __future__ import annotations

import os
import random

import hypothesis
import numpy as np
import pytest
import torch

# What builds the pages needs Sphinx; the tests do not.
collect_ignore_glob = ["docs/*.py"]

# One thread each, here and in what a test starts. On a busy machine two would wait for each other, spinning:
# up to ten times the processor time. `make test` divides the tests among processes instead.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
torch.set_num_threads(1)

# What a newcomer runs draws the same examples every time; `make test-explore` draws new ones.
ALWAYS = {"database": None, "deadline": None, "print_blob": True}
hypothesis.settings.register_profile("suite", derandomize=True, **ALWAYS)
hypothesis.settings.register_profile("explore", derandomize=False, **ALWAYS)
hypothesis.settings.load_profile("suite")  # --hypothesis-profile is read later and wins


class TorchRandom:
    """PyTorch's generator as Hypothesis wants one, so that an example can be drawn again by itself."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()  # Hypothesis holds a weak reference only
hypothesis.register_random(TORCH_RANDOM)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests for a GPU be rehearsed without one."""
    parser.addoption("--device", default="cuda", help="device of the tests marked cuda (default: cuda)")


def seed_everything() -> None:
    """Put the generators that are shared by all into one state."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the one that libraries draw from)
    torch.manual_seed(0)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Arguments of parametrized tests are drawn when a file is imported: alike in every choice of files."""
    if isinstance(collector, pytest.Module):
        seed_everything()


@pytest.fixture(autouse=True)
def _same_draws_in_any_order() -> None:
    """What a test draws does not depend on the tests before it."""
    seed_everything()
