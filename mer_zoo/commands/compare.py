"""`mer-zoo compare`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from mer_zoo.commands import running, terminal
from mer_zoo.commands.progress import Bar
from mer_zoo.errors import MerZooError

STOPPED = "finished results are kept; run it again to go on."


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("suite", metavar="SUITE", nargs="?", default="default", help="a name or a YAML file (default)")
    command.add_argument("--data", action="append", help="dataset instead of the suite's; may be repeated")
    command.add_argument("--models", help="only these models of the suite (`A*; B`)")
    command.add_argument("--seeds", type=int, help="number of seeds instead of the suite's")
    running.places(command)
    command.add_argument(
        "--stack", action=argparse.BooleanOptionalAction, help="train a model's seeds as one program (on GPUs)"
    )
    command.add_argument("--baseline", metavar="MODEL", help="the model that the others are compared with")
    command.add_argument("--all-pairs", action="store_true", help="compare every two models")
    command.add_argument("--dry-run", action="store_true", help="only say what would run, and for how long")
    command.add_argument("--keep-weights", action="store_true", help="also save every trained model")
    running.noting_arguments(command)
    running.arguments(command)


def run(options: argparse.Namespace) -> int:
    """Run a suite of models, datasets and seeds, and compare them."""
    from rich.text import Text

    from mer_zoo.comparison import forecast
    from mer_zoo.comparison import suite as suites
    from mer_zoo.comparison.executing import Listener, execute
    from mer_zoo.comparison.insides import kept, parts_by_path
    from mer_zoo.comparison.report import comparison_table, write_html
    from mer_zoo.comparison.summary import as_json, write_csv
    from mer_zoo.comparison.table import latex, markdown
    from mer_zoo.comparison.tracking import Tracking
    from mer_zoo.comparison.workers import at_a_time, gpus
    from mer_zoo.data.loading import load
    from mer_zoo.results.writing import write_atomically

    suite, executor, trackers = _suite(options), running.executor(options), running.trackers(options)
    how: dict[str, Any] = {"device": running.device_here(options), "options": running.compute_options(options)}
    experiments = suites.experiments(suite, changes=options.change, **how)
    experiments = [replace(experiment, device=options.device) for experiment in experiments]
    console = terminal.console()
    if options.dry_run:
        rows = forecast.forecast(experiments, options.output, options.keep_weights)
        console.print(forecast.table(rows))
        workers = None if executor else at_a_time(gpus({options.device}), options.workers)
        console.print(forecast.sentence(rows, workers))
        return 0
    console.print(Text.assemble((suite.title, "bold"), f": {len(experiments)} runs into {options.output}/"))
    with Bar(len(experiments), "runs") as bar:
        tracking = Tracking(trackers, options.output, bar.say)
        listener = tracking.listener(Listener(bar.start, bar.run, bar.epoch_of_run, bar.say))
        results, failures = execute(
            experiments,
            options.output,
            workers=options.workers,
            keep_weights=options.keep_weights,
            listener=listener,
            executor=executor,
        )
        tracked = tracking.finish([*results, *failures])
    if results:
        pairs = {"baseline": suite.baseline, "all_pairs": options.all_pairs, "broken": [one.broken for one in failures]}
        console.print(comparison_table(results, **pairs))
        console.print(f"One row per run: {write_csv(results, options.output / 'summary.csv')}")
        for ending, form in (("md", markdown), ("tex", latex)):
            write_atomically(options.output / f"summary.{ending}", form(results, **pairs))
        write_atomically(options.output / "summary.json", as_json(results))
        datasets = [load(data) for data in suite.data]
        try:
            page = write_html(
                results,
                options.output / "report.html",
                published=suite.published(),
                datasets=datasets,
                weights=kept([options.output]),
                trust=parts_by_path(experiments),  # their code has just been run
                **pairs,
            )
            console.print(f"Report: {page}")
        except MerZooError as error:
            console.print(f"No HTML report: {error}")
    if options.traceback:
        for failure in failures:
            terminal.say(failure.traceback, sys.stderr)
    if failures:
        console.print(f"{len(failures)} of {len(experiments)} runs failed; why is said above.")
    return int(bool(failures) or not tracked)


def _suite(options: argparse.Namespace) -> Any:
    """Return the suite with what the command line changes in it."""
    from mer_zoo.comparison import suite as suites
    from mer_zoo.comparison.rows import matching

    suite = suites.read(options.suite)
    changed: dict[str, Any] = {}
    if options.data:
        changed["data"] = options.data
    if options.seeds is not None:
        changed["seeds"] = options.seeds
    if options.protocol is not None:
        changed["protocol"] = options.protocol
    if options.split:
        changed["split"] = {**suite.split.plain(), **running.split_fields(options)}
    if options.baseline is not None:
        changed["baseline"] = options.baseline
    if options.models is not None:
        place = f"--models: suite '{options.suite}'"
        chosen = [name for one in options.models.split(";") for name in matching(one.strip(), suite.models, place)]
        changed["models"] = {name: suite.models[name] for name in dict.fromkeys(chosen)}
    return suites.changed(suite, changed)
