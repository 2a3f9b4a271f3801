"""`mer-zoo validate`."""

from __future__ import annotations

import argparse
import json

from mer_zoo.commands import terminal


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("data", metavar="DATA", help="a dataset's name, or a folder that `import` made")
    command.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> None:
    """Report counts, ranges and traps of a dataset."""
    from mer_zoo.data.loading import load
    from mer_zoo.data.validation import describe_dataset, render_report

    report = describe_dataset(load(options.data))
    if options.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        terminal.console(markup=True).print(render_report(report))
