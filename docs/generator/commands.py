"""The command line's reference, made from its parser."""

from __future__ import annotations

import argparse

from docs.generator.pages import Pages, table
from mer_zoo import cli


def pages() -> Pages:
    """Return the page of all commands."""
    parser = cli._parser()
    parts = [
        "# Command line",
        "`mer-zoo COMMAND --help` says the same in the terminal. Exit codes: 0 fine; 1 something did not pass (a run "
        "failed or was not logged, a check found a fault); 2 the input cannot be used, and the message says where and "
        "how to fix it.",
        "In `-o key=value` the key is a path into the recipe, and the value is YAML: `-o training.epochs=5`, "
        "`-o model.classify.head.dropout=0.1`, `-o modalities=[text]`.",
    ]
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        parts += [f"(command-{name})=\n## {name}", command.description or "", f"```console\n$ {_usage(command)}\n```"]
        rows = [(f"`{_name(a)}`", _default(a), _help(a)) for a in command._actions if a.dest != "help"]
        parts += [table(["argument", "default", "meaning"], rows)] if rows else []
    return {"reference/commands.md": "\n\n".join(parts)}


def _usage(command: argparse.ArgumentParser) -> str:
    return " ".join(command.format_usage().removeprefix("usage: ").split()).replace("[-h] ", "").replace(" [-h]", "")


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"{', '.join(action.option_strings)}{value}"


def _default(action: argparse.Action) -> str:
    if action.required or (not action.option_strings and action.nargs not in ("?", "*")):
        return "*required*"
    plain = action.default is None or action.default is False or action.default == []
    return "" if plain else f"`{action.default}`"


def _help(action: argparse.Action) -> str:
    """The meaning, without the default that the terminal shows at its end."""
    return (action.help or "").removesuffix(f" ({action.default})")
