"""The forward and backward pass of a training step as one CUDA graph."""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class _Logits(nn.Module):
    """Stands for a network, so that what is patched for the graph is not the network."""

    def __init__(self, model: nn.Module, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images)


def capture(
    model: nn.Module, logits: Callable[[Tensor], Tensor], images: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return ``logits`` as a graph that is replayed, or itself where that cannot be, with a warning.

    The host then starts one graph where it started a thousand kernels. Numbers are those of the plain way, up
    to the order of sums. Weights, running statistics and random numbers are as before the call.

    Args:
        model: In training mode, on a GPU.
        logits: Runs ``model``; does the same on every call.
        images: A batch, (N, C, H, W); later ones have its shape.
    """
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    states = torch.get_rng_state(), torch.cuda.get_rng_state(images.device)
    host = _host_draws()
    replayed: Callable[[Tensor], Tensor] = logits
    # The cache of autocast would hand the graph weights of an earlier step.
    mixed = torch.autocast(
        "cuda",
        torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
    try:
        with mixed:
            stand_in = _Logits(model, logits).train()
            torch.cuda.make_graphed_callables(stand_in, (images.clone(),), allow_unused_input=True)
            replayed = stand_in
        # A branch that is drawn on the host would be the same in every replay.
        if _host_draws() != host:
            replayed = logits
            warnings.warn(
                "no CUDA graph: the network draws random numbers on the processor; it is trained without",
                stacklevel=2,
            )
    except RuntimeError as error:
        replayed = logits
        reason = str(error).partition("\n")[0]
        warnings.warn(
            f"no CUDA graph could be captured ({reason}); the network is trained without", stacklevel=2
        )
    finally:
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
        torch.set_rng_state(states[0])
        torch.cuda.set_rng_state(states[1], images.device)
    return replayed


def _host_draws() -> tuple[object, ...]:
    """Return something that changes with every random number that is drawn on the processor."""
    numpy_s = pickle.dumps(np.random.get_state())  # noqa: NPY002 (networks may draw from it)
    return random.getstate(), numpy_s, torch.get_rng_state().numpy().tobytes()
