"""The command line: the parser, and what a command's end means for the terminal.

Heavy modules are imported by the command that needs them, so that `list` answers at once.
"""

from __future__ import annotations

import argparse
import keyword
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mer_zoo import __version__
from mer_zoo.commands import terminal
from mer_zoo.errors import MerZooError, nearest

# the module of every command; no docstring, or the reference would print where each module lies
COMMANDS: dict[str, Any] = {
    name: import_module(f"mer_zoo.commands.{name}{'_' * keyword.iskeyword(name)}")
    for name in (
        "list", "describe", "train", "evaluate", "predict", "compare", "tune", "validate", "import", "extract",
        "parity", "report", "reproduce", "rerun", "export", "new", "check", "doctor",
    )
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are ours: one message with the nearest match, exit code 2."""

    def error(self, message: str) -> Any:
        if "invalid choice: '" in message:
            wrong = message.split("invalid choice: '")[1].split("'")[0]
            message = f"no command '{wrong}'.{nearest(wrong, COMMANDS)}"
        elif message.startswith("unrecognized arguments: "):
            wrong = message.removeprefix("unrecognized arguments: ").split()[0]
            options = [text for action in self._actions for text in action.option_strings]
            message = f"unknown argument '{wrong}'.{nearest(wrong, options)}"
        with terminal.prepared():
            self.exit(2, terminal.printable(f"{self.prog}: {message}\nSee `{self.prog} --help`.\n"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: those of the command line; `sys.argv` if None.

    Returns:
        the exit code: 0 fine, 1 something did not pass, 2 the input cannot be used.

    Example:
        >>> main(["list", "fusion", "concat"])
        fusion/concat  Modalities side by side.
        0
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:
        chosen = parser
        if options.command:
            chosen = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[
                options.command
            ]
        chosen.error(f"unrecognized arguments: {' '.join(rest)}")
    if not options.command:
        parser.print_help()
        return 0
    with terminal.prepared():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    command = COMMANDS[options.command]
    try:
        code = command.run(options) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `mer-zoo list | head`
        terminal.abandon()
        return 0
    except KeyboardInterrupt:
        message, code = f"stopped; {getattr(command, 'STOPPED', 'nothing is left half-written.')}", 130
    except (Exception, SystemExit) as error:  # a part of the user's own may well call `sys.exit`
        if options.traceback:
            traceback.print_exception(error)
        if isinstance(error, OSError) and error.filename is None:  # a full disk behind standard output
            terminal.abandon()
        message, code = _message(error), 2 if isinstance(error, (MerZooError, OSError, SystemExit)) else 1
    terminal.say(f"mer-zoo {options.command}: {message}", sys.stderr)
    return code


def _message(error: BaseException) -> str:
    if isinstance(error, MerZooError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'standard output'}: {error.strerror or error}."
    if isinstance(error, SystemExit):
        return "the code of a part ended the program. Take `sys.exit` out of it."
    return f"unexpected {type(error).__name__}: {error}. Run it with --traceback, and please report what it shows."


def _parser() -> _Parser:
    parser = _Parser(prog="mer-zoo", description="Multimodal emotion recognition in conversation: models, compared.")
    parser.add_argument("--version", action="version", version=f"mer-zoo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, module in COMMANDS.items():
        summary = module.run.__doc__.splitlines()[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.arguments(command)
        command.add_argument("--traceback", action="store_true", help="show where in the code a failure comes from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
