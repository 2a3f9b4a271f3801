"""`mer-zoo parity`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mer_zoo.commands import terminal


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("file", metavar="FILE.npz", type=Path, nargs="+", help="parity files")
    command.add_argument("--verbose", action="store_true", help="every quantity, not only the largest differences")


def run(options: argparse.Namespace) -> int:
    """Compare a recipe with a published implementation's numbers."""
    from rich.table import Table
    from rich.text import Text

    from mer_zoo.model import parity

    passes = True
    for path in options.file:
        differences = parity.check(path)
        groups: dict[str, list[parity.Difference]] = {}
        for d in differences:
            kind = next((k for k in ("gradient", "logits", "loss") if d.quantity.startswith(k)), d.quantity)
            groups.setdefault(d.quantity if options.verbose or not d.passes else kind, []).append(d)
        table = Table("quantity", "compared", "largest difference", "of tolerance", "", title=path.name)
        for name, members in groups.items():
            worst = max(members, key=lambda d: d.share)
            mark = Text("passes") if worst.passes else Text("FAILS", "bold red")
            table.add_row(name, str(len(members)), f"{worst.difference:.2e}", f"{worst.share:.0%}", mark)
        terminal.console().print(table)
        passes = passes and all(d.passes for d in differences)
    return int(not passes)
