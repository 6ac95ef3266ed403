"""Which batch normalisations could be folded into the convolutions before them: who reads what in a pass."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from erfattr.receptive_field._signatures import storage_of


@dataclass
class _Output:
    """What a convolution gave, and who has read its memory since.

    Attributes:
        name: The convolution's name.
        tensor: The output.
        memory: Held, so that no other tensor gets the same number.
        readers: How many operators read it.
        statistics: Storage of the running mean with which the last of them normalised it.
    """

    name: str
    tensor: weakref.ref[Tensor]
    memory: Any
    readers: int = 0
    statistics: int | None = None


class Readers:
    """Watches a pass: which operators read the model's own tensors, and the outputs of its convolutions."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.modules: dict[str, nn.Module] = {}
        """The modules whose runs are to be noted."""
        self._owners: dict[int, list[str]] = {}
        first_names: dict[int, str] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            if id(module) in first_names:  # under two names, of which a fold would replace one
                self.modules.pop(first_names[id(module)], None)
                continue
            first_names[id(module)] = name
            for tensor in _own(module):
                self._owners.setdefault(storage_of(tensor), []).append(name)
            if isinstance(module, (_ConvNd, _BatchNorm)):
                self.modules[name] = module
        self._reads: Counter[int] = Counter()
        self._runs: Counter[str] = Counter()
        self._outputs: dict[int, _Output] = {}

    def read(self, name: str, bound: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
        """Note an operator that is about to run."""
        for storage in {storage_of(tensor) for tensor in tensors}:
            if storage in self._owners:
                self._reads[storage] += 1
            output = self._outputs.get(storage)
            if output is not None:
                output.readers += 1
                output.statistics = _statistics(name, bound)

    def finished(self, name: str, result: Any) -> None:
        """Note that one of ``modules`` has run."""
        self._runs[name] += 1
        if not isinstance(result, Tensor) or not isinstance(self.modules[name], _ConvNd):
            return
        storage = storage_of(result)
        if storage in self._outputs:  # the memory of another convolution's output: that has one more user
            self._outputs[storage].readers += 1
        else:
            self._outputs[storage] = _Output(name, weakref.ref(result), result.untyped_storage())

    def folds(self) -> tuple[tuple[str, str], ...]:
        """Return names of convolutions and of the batch normalisations that alone read their outputs."""
        pairs = []
        for output in self._outputs.values():
            # An output that still lives was returned, or kept for later: somebody may read it.
            if output.readers != 1 or output.statistics is None or output.tensor() is not None:
                continue
            owners = self._owners.get(output.statistics, [])
            if len(owners) == 1 and self._alone(output.name) and self._alone(owners[0]):
                pairs.append((output.name, owners[0]))
        return tuple(pairs)

    def _alone(self, name: str) -> bool:
        """Whether a module has run once, and its tensors are no one else's and were read once."""
        module = self.modules.get(name)
        if module is None or self._runs[name] != 1:
            return False
        # A buffer of a convolution (the taps of a blur) stays as it is, whoever reads it.
        tensors: list[Tensor] = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm):
            tensors += [t for t in (module.running_mean, module.running_var) if t is not None]
        storages = [storage_of(tensor) for tensor in tensors]
        return all(len(self._owners[s]) == 1 and self._reads[s] == 1 for s in storages)


def _own(module: nn.Module) -> list[Tensor]:
    # Not parameters() and buffers(), which take longer than a pass through a small network.
    return [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]


def _statistics(name: str, bound: Mapping[str, Any]) -> int | None:
    """Storage of the running mean by which an operator normalises; ``None`` if it does something else."""
    if "batch_norm" not in name:
        return None
    mean = bound.get("running_mean")
    evaluating = "no_training" in name or bound.get("training", bound.get("train")) is False
    return storage_of(mean) if isinstance(mean, Tensor) and evaluating else None
