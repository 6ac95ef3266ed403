"""What is listed or printed instead of a run: the networks, and what a shell needs to complete words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


class ListModels(argparse.Action):
    """Prints the names that ``--model`` takes, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 (argparse's signature)
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Print them."""
        from erfattr.models.listing import model_names, others

        word = str(values or "")
        names = model_names(word)
        if not names:
            parser.error(f"argument --list-models: expected a part of a network's name, got {word!r}")
        print("\n".join(names))
        if not word:
            print(others())
        parser.exit()


class PrintCompletion(argparse.Action):
    """Prints a shell's completion of all commands and options, made by shtab, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 (argparse's signature)
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Print it."""
        try:
            import shtab
        except ImportError:
            parser.error(
                "argument --print-completion: needs shtab, which is not installed: pip install shtab"
            )
        print(shtab.complete(parser, shell=str(values)))
        parser.exit()
