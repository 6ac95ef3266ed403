"""A dispatch mode that sees every operator of a pass: what all passes of this room are watched with."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hands every operator that runs to `see`, which runs it; one thread of the process at a time.

    PyTorch notes in variables of the whole process that a mode is active, and what was so before: two threads
    that leave in another order than they came would leave it noted for ever.
    """

    supports_higher_order_operators = True
    _turn: ClassVar[Any] = RLock()

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._see: Callable[..., Any] = self.see
        if "torch._dynamo" in sys.modules:
            self._see = torch.compiler.disable(self.see)  # type: ignore[no-untyped-call]

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To keep its compiler away from this class PyTorch would import it, which takes seconds.
        return False

    @abstractmethod
    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator and return its result."""

    def __enter__(self) -> Any:
        self._turn.acquire()
        try:
            return super().__enter__()  # type: ignore[no-untyped-call]
        except BaseException:
            self._turn.release()
            raise

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)  # type: ignore[no-untyped-call]
        finally:
            self._turn.release()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = self._see(func, args, kwargs or {})
        # PyTorch 2.4 lets a kernel that is larger than its input pass without data, and only then.
        if func is torch.ops.aten.convolution.default and not result.numel() and args[0].numel():
            raise RuntimeError("a convolution's kernel is larger than its padded input")
        return result
