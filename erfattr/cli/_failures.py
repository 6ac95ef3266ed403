"""What a failure says: one line with what failed, where, and what to try; and the status of the process.

A refusal is what erfattr raises on purpose; it names what was wrong and is shown as it is. Everything else
(the model's own errors, torch's, the system's, our own mistakes) is shown with its place. Commands need to do
nothing for it; `naming` says which option an argument of the library came from, where the names differ.
"""

from __future__ import annotations

import argparse
import dis
import errno
import re
import signal
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

_LONGEST = 600
_OURS = str(Path(__file__).resolve().parent.parent)
# What is installed, as opposed to what a user wrote; and what stands below all that is of interest.
_PACKAGES = tuple(str(Path(sysconfig.get_path(key)).resolve()) for key in ("purelib", "platlib"))
_NOT_TOLD = tuple(f"{folder}/torch" for folder in _PACKAGES)
_STANDARD = tuple(str(Path(sysconfig.get_path(key)).resolve()) for key in ("stdlib", "platstdlib"))
# Arguments of the library, and the options that they come from: the first that was given. Others are called
# as their option is.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "checkpoint": ("state",),
    "execution": ("precision",),
    "features": ("to_spatial",),
    "folder": ("output",),
    "interval": ("state_interval",),
    "layer": ("layers", "layer"),
    "max_batch_size": ("batch_size",),
    "max_generations": ("generations",),
    "n_map_images": ("map_images",),
    "name": ("model",),
    "num_workers": ("workers",),
    "population_size": ("population",),
    "root": ("data",),
    "sensitivity_map": ("map",),
    "sources": ("layers",),
    "target": ("reach", "target"),
    "tokens": ("to_spatial",),
    "variant": ("variants", "variant"),
}
# An argument as one would write it in Python: target="predicted", group=...
_ARGUMENT = re.compile(r"""(?<![\w-])([a-z][a-z_]*)=(?:["']([\w-]+)["'])?""")
_NAMES = "_erfattr_names"
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(KeyboardInterrupt):
    """The process was asked to end, by Ctrl-C or by a signal."""


class Failure(NamedTuple):
    """What is said of a failure, and the status that the process ends with."""

    line: str
    status: int


class Signals:
    """Makes SIGTERM and SIGHUP what Ctrl-C is, while a command runs.

    Attributes:
        received: Number of the last signal, 0 for none: libraries turn an interruption into other errors.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            # What is ignored stays so (nohup), and so does what the caller of `main` has chosen.
            if number is not None and signal.getsignal(number) in (
                signal.SIG_DFL,
                signal.default_int_handler,
            ):
                try:
                    self._before[number] = signal.signal(number, self._stop)
                except ValueError:  # not the main thread, which alone gets signals
                    break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.received = number
        raise Interrupted

    @property
    def status(self) -> int:
        """The status that a shell gives a process which a signal ended: 130, 143, 129."""
        return 128 + (self.received or int(signal.SIGINT))

    @property
    def words(self) -> str:
        """What happened."""
        number = self.received or int(signal.SIGINT)
        return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


@contextmanager
def naming(**names: str) -> Iterator[None]:
    """Let errors of the block name these options instead of the library's arguments: ``path="--state"``."""
    try:
        yield
    except Exception as error:
        setattr(error, _NAMES, {**names, **getattr(error, _NAMES, {})})
        raise


def told(error: BaseException, options: argparse.Namespace, positional: Mapping[str, str]) -> Failure:
    """Return what is said of an error.

    Args:
        error: What a command raised.
        options: What it was given.
        positional: What the usage calls those without a name, by their destination.
    """
    of_system = isinstance(error, OSError) and error.strerror is not None
    if is_refusal(error) and not of_system:
        message = _one_line(str(error)) or type(error).__name__
        named = _as_typed(message, options, positional, getattr(error, _NAMES, {}))
        # Whatever names an option, or a file that cannot be read, could be known from what was typed.
        is_usage = named.startswith("--") or named.partition(":")[0] in positional.values()
        is_usage = is_usage or any(kind.__name__ == "UnreadableImageError" for kind in type(error).__mro__)
        return Failure(named, 2 if is_usage else 1)
    if is_out_of_memory(error):
        smaller = [f"--{name}" for name in ("batch-size", "size") if hasattr(options, name.replace("-", "_"))]
        hint = f"; a smaller {' or '.join(smaller)} may do" if smaller else ""
        return Failure(f"out of memory: {meaningful(error)}{hint}", 1)
    if isinstance(error, OSError) and error.strerror:
        files = [repr(str(name)) for name in (error.filename, error.filename2) if name is not None]
        where = _place(error)
        place = f" ({where})" if where and not files else ""
        return Failure(f"{': '.join([*files, error.strerror])}{place}{_MORE}", 1)
    name = type(error).__name__
    said = meaningful(error)
    where = _place(error)
    place = f" ({where})" if where else ""
    begin, hint = "", ""
    if _in_model(error.__traceback__):
        tries = [f"--{name}" for name in ("size", "channels") if hasattr(options, name)]
        begin = "the model failed: "
        hint = f"; if it wants other images, give {' or '.join(tries)}" if tries else ""
    return Failure(f"{begin}{name}{': ' if said else ''}{said}{place}{hint}{_MORE}", 1)


_MORE = "; --debug shows the traceback"


def is_refusal(error: BaseException) -> bool:
    """Whether erfattr raised it on purpose: by a ``raise`` of its own, not by something that it called."""
    traceback = error.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    operation = dis.opname[code.co_code[traceback.tb_lasti]]
    return _is_below(code.co_filename, _OURS) and operation == "RAISE_VARARGS"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the processor or on a device."""
    text = _text(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text))
    )


def meaningful(error: object) -> str:
    """Return the line of an error's or a warning's message that says something, without what torch adds.

    Example:
        >>> meaningful(RuntimeError("[enforce fail at alloc.cpp:98] . DefaultCPUAllocator: can't allocate"))
        "can't allocate"
    """
    lines = [line.strip() for line in _text(error).splitlines() if line.strip()]
    if not lines:
        return ""
    if any("Traceback" in line for line in lines):  # of a script or of a worker; the error stands last
        return _short(next((line for line in reversed(lines) if _begins_as_error(line)), lines[-1]))
    first = lines[0]
    if first.endswith(":") and len(lines) > 1:
        first = f"{first} {lines[1]}"
    return _short(_allocator(first))


def _text(error: object) -> str:
    try:
        return str(error)
    except Exception:  # the user's own class may not even be printed
        return ""


def _allocator(line: str) -> str:
    """Return a message of torch's checks without the place in its source."""
    _, mark, rest = line.partition("DefaultCPUAllocator: ")
    if mark:
        return rest
    # [enforce fail at file.cc:12] condition. message
    return line.partition("] ")[2] or line if line.startswith("[enforce fail") else line


def _begins_as_error(line: str) -> bool:
    name, colon, _ = line.partition(": ")
    return bool(colon) and name.replace(".", "").isidentifier() and name[-1] not in "."


def _one_line(text: str) -> str:
    return _short(" ".join(text.split("\n")) if "\n" in text else text)


def _short(text: str) -> str:
    text = " ".join(text.split()) if len(text) > _LONGEST else text
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    # A file's name may hold anything, and a terminal does what it reads.
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def _as_typed(
    message: str, options: argparse.Namespace, positional: Mapping[str, str], names: Mapping[str, str]
) -> str:
    """Return a message that begins with the name of an argument with that of the option instead."""
    message = _ARGUMENT.sub(
        lambda match: (
            f"--{match[1].replace('_', '-')}{' ' * bool(match[2])}{match[2] or ''}"
            if hasattr(options, match[1])
            else match[0]
        ),
        message,
    )
    argument, colon, rest = message.partition(": ")
    if not colon:
        return message
    if argument in names:
        return f"{names[argument]}: {rest}"
    candidates = [name for name in _OPTIONS.get(argument, (argument,)) if hasattr(options, name)]
    if not candidates:
        return message
    name = next((name for name in candidates if getattr(options, name) is not None), candidates[-1])
    return f"{positional.get(name, '--' + name.replace('_', '-'))}: {rest}"


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame that a user wrote, or else of a library's above torch.

    A user's frame may stand in the error that this one was raised from.
    """
    found: list[tuple[str, int]] = []
    cause: BaseException | None = error
    while cause is not None:
        places = [place for place in _places(cause.__traceback__) if not _is_below(place[0], *_NOT_TOLD)]
        users = [place for place in places if not _is_below(place[0], _OURS, *_PACKAGES)]
        if isinstance(cause, SyntaxError) and cause.filename is not None:
            users.append((cause.filename, cause.lineno or 1))
        if users:
            found = users
            break
        found = found or places
        cause = cause.__cause__
    return f"{_shown(found[-1][0])}, line {found[-1][1]}" if found else ""


def _places(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        standard = _is_below(file, *_STANDARD) and not _is_below(file, *_PACKAGES)
        if not file.startswith("<") and not standard:
            yield file, traceback.tb_lineno
        traceback = traceback.tb_next


def _in_model(traceback: TracebackType | None) -> bool:
    """Whether a module was being called."""
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name == "_call_impl":
            return True
        traceback = traceback.tb_next
    return False


def _shown(file: str) -> str:
    path = Path(file)
    here = str(Path.cwd())
    folders = [*_PACKAGES, str(Path(_OURS).parent), here]
    return str(next((path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), path))


def _is_below(file: str, *folders: str) -> bool:
    path = Path(file).resolve()
    return any(path.is_relative_to(folder) for folder in folders)


def say(words: str) -> None:
    """Write a line to standard error, whatever it can hold."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    print(words.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)
