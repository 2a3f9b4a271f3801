"""`mer-zoo check`."""

from __future__ import annotations

import argparse

from mer_zoo import registry
from mer_zoo.commands import terminal


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("part", metavar="KIND/NAME", help="a name, module:Class or ./file.py:Class behind the kind")
    command.add_argument("--only", metavar="PATTERN", default="*", help="a wildcard on the names of the checks")
    command.add_argument("--list", action="store_true", help="list the names of the checks instead")


def run(options: argparse.Namespace) -> None:
    """Check that a part keeps its contract."""
    from mer_zoo.checking import check_names, check_part

    kind, name = registry.split(options.part)
    if options.list:
        for check in check_names(kind, name):
            terminal.say(check)
        return
    for finding in check_part(kind, name, only=options.only):
        terminal.say(finding)
    terminal.say(f"{options.part}: passes.")
