"""`mer-zoo rerun`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mer_zoo.commands import running, terminal
from mer_zoo.commands.progress import Bar


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("result", metavar="RESULT", type=Path, help="a .result.json")
    command.add_argument(
        "--data", help="the dataset it was made on: a name, a folder or '{name: ..., settings}' (its name)"
    )
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")
    command.add_argument(
        "--trust", metavar="PART", action="append", default=[], help="a part by file or module that may be run"
    )


def run(options: argparse.Namespace) -> int:
    """Make a run again from its result file, and compare."""
    from rich.table import Table

    from mer_zoo.comparison.repeating import again, agreement
    from mer_zoo.results.result import read_result
    from mer_zoo.training.options import check_device

    check_device(options.device)
    then = read_result(options.result)
    data = running.named(options.data or then.dataset.name, "--data")
    experiment = again(then, data, options.result, device=options.device, trust=options.trust)
    experiment.rehearse()
    with Bar(then.epochs_run, then.recipe_name) as bar:
        now = experiment.run(bar.epoch).result
    found = agreement(then, now)
    table = Table("score", "then", "now")
    for name, (before, after) in found.rows.items():
        table.add_row(name.replace("_", " "), f"{before:.4f}", f"{after:.4f}")
    terminal.console().print(table)
    terminal.console().print(found.sentence)
    return int(found.differing > 0)
