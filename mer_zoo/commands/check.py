"""`mer-zoo check`."""

from __future__ import annotations

import argparse

from mer_zoo import registry
from mer_zoo.commands import terminal


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("part", metavar="KIND/NAME", help="a name, module:Class or ./file.py:Class behind the kind")


def run(options: argparse.Namespace) -> None:
    """Prove that a part keeps its contract."""
    from mer_zoo.checking import check_part

    for finding in check_part(*registry.split(options.part)):
        terminal.say(finding)
    terminal.say(f"{options.part}: passes.")
