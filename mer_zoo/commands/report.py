"""`mer-zoo report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mer_zoo.commands import running, terminal

if TYPE_CHECKING:
    from mer_zoo.results.result import Result


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("runs", metavar="RUNS", nargs="+", type=Path, help="result files, or folders that hold them")
    command.add_argument("--output", metavar="FILE", type=Path, default=Path("report.html"), help="(report.html)")
    command.add_argument(
        "--data",
        action="append",
        default=[],
        help="dataset, so dialogues can be read: a name, a folder or '{name: synthetic, seed: 1}'; may be repeated",
    )
    command.add_argument(
        "--trust", metavar="PART", action="append", default=[], help="a part by file or module that may be run"
    )
    command.add_argument("--baseline", metavar="MODEL", help="the model that the others are compared with")
    command.add_argument("--all-pairs", action="store_true", help="compare every two models")


def run(options: argparse.Namespace) -> None:
    """Make a report of result files from anywhere."""
    from mer_zoo.comparison.insides import kept
    from mer_zoo.comparison.report import comparison_table, write_html
    from mer_zoo.data.loading import load
    from mer_zoo.errors import MerZooError
    from mer_zoo.results.result import read_result, read_results
    from mer_zoo.tuning.telling import searched

    found: dict[str, Result] = {}
    for path in options.runs:
        read = read_results(path, lambda text: terminal.say(text, sys.stderr)) if path.is_dir() else [read_result(path)]
        found |= {result.run: result for result in read}  # a run that is given twice counts once
    if not found:
        raise MerZooError(f"{options.runs[0]}: holds no result files. Give what `train` or `compare` wrote.")
    results = list(found.values())
    datasets = {text: load(running.named(text, "--data"), "--data") for text in options.data}
    known = {result.dataset.fingerprint: result.dataset.name for result in results}
    for text, dataset in datasets.items():
        if dataset.fingerprint not in known:
            others = ", ".join(f"{name} ({print_[:8]})" for print_, name in known.items())
            raise MerZooError(
                f"--data {text}: no result is of this dataset ({dataset.fingerprint[:8]}); they are of {others}. Give "
                "the dataset as the suite did: a folder, or '{name: synthetic, ...}' with its settings."
            )
    pairs = {"baseline": options.baseline, "all_pairs": options.all_pairs}
    terminal.console().print(comparison_table(results, **pairs))
    page = write_html(
        results,
        options.output,
        datasets=list(datasets.values()),
        weights=kept(options.runs),
        trust=options.trust,
        searches=[told for path in options.runs for told in searched(path)],
        **pairs,
    )
    terminal.say(f"Report: {page}")
