"""Results that show themselves: one line where they are printed, a picture in a notebook, a dict for JSON."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from erfattr._files import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Shown:
    """What results share that a user holds: a dataclass with ``_in_words``.

    The pictures are `erfattr.report.showing`'s, which lies above most results: it is asked by its name, when
    somebody looks, and matplotlib is imported then.
    """

    def _in_words(self) -> str:
        """Return what is most important, in a line."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """The most important in a line; `to_dict` has the rest."""
        return f"{type(self).__name__}({self._in_words()})"

    def _repr_html_(self) -> str:
        """A table and a picture, for notebooks."""
        found: str = _pictures().html(self)
        return found

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw the result.

        Args:
            ax: Where to draw; ``None`` for a new figure of pyplot.
            **options: Further arguments of the function in `erfattr.report` that draws it, such as ``cmap``.

        Returns:
            The axes.
        """
        found: Axes = _pictures().plot(self, ax, **options)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return all as numbers, texts, lists and dicts, which JSON can hold; not finite is ``None``."""
        named = {
            field.name: getattr(self, field.name)
            for field in fields(self)  # type: ignore[arg-type]
            if not field.name.startswith("_")
        }
        found: dict[str, Any] = plain(named)
        return found


def _pictures() -> Any:
    return import_module("erfattr.report.showing")
