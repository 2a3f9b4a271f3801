"""What reaches the terminal: every terminal can show it, and names are shown, never interpreted."""

from __future__ import annotations

import codecs
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from mer_zoo.showing import visible

if TYPE_CHECKING:
    from rich.console import Console

IN_ASCII = str.maketrans({"→": "->", "–": "-", "−": "-", "±": "+-", "×": "x", "…": "...", "’": "'"})
"""What stands for the signs of our own texts in a terminal that lacks them."""


def printable(text: str) -> str:
    """Return a text whose control characters, but for new lines and tabs, are written out.

    Example:
        >>> print(printable("dialogue \\x1b[31m7"))
        dialogue \\x1b[31m7
    """
    return visible(text, keep="\n\t")


def say(text: object, file: TextIO | None = None) -> None:
    """Print a text, made printable.

    Args:
        text: what to print.
        file: where to; standard output if None.
    """
    print(printable(str(text)), file=file)


def console(*, stderr: bool = False, markup: bool = False) -> Console:
    """Return a rich console that shows names as they are: no markup, no emoji codes, no control characters.

    Args:
        stderr: write to standard error.
        markup: interpret rich markup all the same, for texts that are escaped already.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Escaped:
        """A renderable with its control characters written out."""

        def __init__(self, shown: Any) -> None:
            self.shown = shown

        def __rich_console__(self, console: Console, options: Any) -> Iterator[Segment]:
            for segment in console.render(self.shown, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    class Escaping:
        """Puts `Escaped` around whatever is printed."""

        def process_renderables(self, renderables: Sequence[Any]) -> list[Any]:
            return [Escaped(shown) for shown in renderables]

    class Piped(Console):
        """A console that is silent once nobody reads it: a command goes on, and writes its files."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            abandon()

    made = Piped(stderr=stderr, markup=markup, emoji=False, highlight=False)
    made.push_render_hook(Escaping())  # type: ignore[arg-type]
    return made


def abandon() -> None:
    """Send what is still in the buffer of standard output nowhere, or Python would complain of it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def prepared() -> Iterator[None]:
    """Let any terminal show any text, and print warnings as one line, for the time of a command."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    kept = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="mer_zoo")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", sys.stderr)
            yield
    finally:
        for stream, errors in zip(streams, kept, strict=True):
            stream.reconfigure(errors=errors)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    wrong = error.object[error.start : error.end]
    return wrong.translate(IN_ASCII).encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("mer_zoo", _in_ascii)
