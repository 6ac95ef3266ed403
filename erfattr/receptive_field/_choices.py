"""Where values choose what is read: there NaN does not come through, and a probe with it sees too little."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from typing_extensions import override

from erfattr.receptive_field._dispatch import Watching
from erfattr.receptive_field._rules import base_name
from erfattr.receptive_field._signatures import storage_of, tensors_in

# Operators that take NaN for something else, leave it out, or put it last among values in their order.
_DROP = {
    "nan_to_num", "nan_to_num_", "nansum", "nanmean", "nanmedian", "nanquantile", "fmax", "fmin",
    "sort", "msort", "topk", "kthvalue", "mode",
}  # fmt: skip
# Operators that hand a value to Python, which may take another way for it.
_TO_PYTHON = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select"}
# Operators that read the first operand where the second says, which is a number like any other.
_SAMPLE = {"grid_sampler_2d", "grid_sampler_3d", "grid_sampler", "cudnn_grid_sampler"}


class Level(IntEnum):
    """What a tensor has of the image."""

    NOTHING = 0
    VALUE = 1
    """Floating-point values, through which NaN passes."""
    CHOICE = 2
    """Indices or truth values that were made of values: NaN ends here."""
    CHOSEN = 3
    """Values that a choice had a part in."""


class Choices(Watching):
    """Follows through a pass what was chosen by values of the image.

    By storage: what is written into a view is in the tensor too.

    Args:
        image: What the model is given.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        # Storages are kept, or another one could lie at the address of one that is gone.
        self._levels: dict[int, tuple[Any, Level]] = {}
        self._ends: Level = Level.NOTHING
        self._why: dict[int, str] = {}
        self._first = ""
        self._put(image, Level.VALUE, "")

    def chosen_by(self, tensor: Tensor) -> str:
        """Return the operator that made a choice on the way to a tensor; empty where none did."""
        if self._ends is Level.CHOSEN:
            return self._first
        level = self._level(tensor)
        return self._why.get(storage_of(tensor), "") if level is Level.CHOSEN else ""

    @override
    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if not isinstance(func, OpOverload):
            return result
        given = list(tensors_in((*args, *kwargs.values())))
        levels = [self._level(tensor) for tensor in given]
        level = max(levels, default=Level.NOTHING)
        if level is Level.NOTHING:
            return result
        name = base_name(func)
        why = next((self._why[storage_of(one)] for one in given if storage_of(one) in self._why), "")
        samples = name in _SAMPLE and len(args) > 1 and self._level(args[1]) is not Level.NOTHING
        if name in _TO_PYTHON and level in (Level.VALUE, Level.CHOICE):
            self._ends, self._first = Level.CHOSEN, self._first or func._schema.name
        if name in _DROP or samples:
            level, why = Level.CHOSEN, why or func._schema.name
        for output in tensors_in((result,)):
            floating = output.is_floating_point() or output.is_complex()
            if level is Level.CHOSEN:
                self._put(output, Level.CHOSEN, why)
            elif level is Level.CHOICE and floating:
                self._put(output, Level.CHOSEN, why or func._schema.name)
            elif level is Level.CHOICE or not floating:
                self._put(output, Level.CHOICE, why or func._schema.name)
            else:
                self._put(output, Level.VALUE, "")
        return result

    def _level(self, tensor: Tensor) -> Level:
        return self._levels.get(storage_of(tensor), (None, Level.NOTHING))[1]

    def _put(self, tensor: Tensor, level: Level, why: str) -> None:
        address = storage_of(tensor)
        if level >= self._level(tensor):
            self._levels[address] = (tensor.untyped_storage(), level)
            if why:
                self._why.setdefault(address, why)
