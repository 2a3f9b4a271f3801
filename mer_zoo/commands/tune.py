"""`mer-zoo tune`."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mer_zoo.commands import running, terminal
from mer_zoo.commands.progress import Bar
from mer_zoo.errors import MerZooError
from mer_zoo.registry.faults import short

if TYPE_CHECKING:
    from mer_zoo.comparison.ray_cluster import Connected
    from mer_zoo.comparison.suite import Suite
    from mer_zoo.comparison.tracking import Tracking
    from mer_zoo.tuning.search import Search

TUNED = ", tuned"
"""What is added to the name of a model for the best that was found."""

STOPPED = "finished trials and runs are kept; run it again to go on."


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("what", metavar="RECIPE|SUITE", help="a recipe, or a suite whose models get the same budget")
    command.add_argument("--data", action="append", help="dataset (a recipe's: synthetic); may be repeated")
    command.add_argument("--trials", type=int, default=60, help="trials of every model that train (60)")
    command.add_argument("--trial-seeds", type=int, default=1, help="seeds whose mean is a trial's score (1)")
    command.add_argument("--seeds", type=int, help="seeds of the comparison at the end (5, or the suite's)")
    command.add_argument(
        "--keys", metavar="PATTERN", action="append", help="search only keys like this; may be repeated"
    )
    running.places(command)
    running.track_argument(command)
    running.arguments(command)


def run(options: argparse.Namespace) -> int:
    """Search settings and parts on validation data, then compare the best with the recipe as it is."""
    from mer_zoo.comparison.tracking import Tracking
    from mer_zoo.results.writing import check_writable

    suite, executor, trackers = _suite(options), running.executor(options), running.trackers(options)
    for name, value in (("--trials", options.trials), ("--trial-seeds", options.trial_seeds)):
        if value < 1:
            raise MerZooError(f"{name} {value}: want at least 1.")
    searches = _searches(options, suite)  # all of them before the first trial, so a mistake costs nothing
    check_writable(options.output)
    tracking = Tracking(trackers, options.output, lambda message: terminal.say(message, sys.stderr))
    with executor.connected() if executor else nullcontext() as connected:
        return _search(options, suite, searches, connected, tracking)


def _search(
    options: argparse.Namespace,
    suite: Suite,
    searches: list[tuple[Search, Any]],
    executor: Connected | None,
    tracking: Tracking,
) -> int:
    from mer_zoo.comparison import suite as suites
    from mer_zoo.comparison.executing import Listener, execute
    from mer_zoo.comparison.report import comparison_table, write_html
    from mer_zoo.comparison.suite import Entry
    from mer_zoo.comparison.summary import write_csv
    from mer_zoo.data.loading import load
    from mer_zoo.results.result import file_word
    from mer_zoo.tuning import summary, trials

    console = terminal.console()
    found, best, logged = [], [], []
    for name in [name for name in suite.models if name not in {search.name for search, _ in searches}]:
        console.print(f"{name}: nothing to search; it is compared as it is.")
    for search, data in searches:
        with Bar(search.budget, search.name) as bar:

            def watch(trial: Any, search: Search = search, bar: Bar = bar) -> None:
                bar.count(_noted(trial))
                tracking(summary.tracked(search, trial))

            bar.start(search.budget, len(search.trained()))
            trials.run(search, workers=options.workers, executor=executor, watch=watch)
        logged += [summary.tracked(search, trial) for trial in search.trained()]
        one = summary.found(search)
        found.append(one)
        console.print(str(one))
        file = f"{file_word(f'{search.name}-{one.data}', 200)}-{search.key}.yaml"  # two names may be one word
        tuned = summary.write_best(search, one, options.output / file)
        console.print(f"Best recipe: {tuned}")
        best.append((data, search.name + TUNED, Entry(recipe=str(tuned))))
    summary.write_found(found, options.output / summary.FILE)
    how: dict[str, Any] = {"device": running.device_here(options), "options": running.compute_options(options)}
    runs = []
    for given in suite.data:
        tuned_here = {name: entry for data, name, entry in best if data == given}
        chosen = suites.changed(suite, {"data": [given], "models": {**suite.models, **tuned_here}})
        made = suites.experiments(chosen, changes=options.change, **how)
        runs += [replace(one, device=options.device) for one in made if one.fold in (None, 0)]
    with Bar(len(runs), "runs") as bar:
        listener = tracking.listener(Listener(bar.start, bar.run, bar.epoch_of_run, bar.say))
        how = {"workers": options.workers, "listener": listener, "executor": executor}
        results, failures = execute(runs, options.output, **how)
    complete = tracking.finish([*logged, *results, *failures])
    if results:
        told: dict[str, Any] = {"baseline": suite.baseline, "broken": [one.broken for one in failures]}
        console.print(comparison_table(results, **told))
        console.print(f"One row per run: {write_csv(results, options.output / 'summary.csv')}")
        try:
            from mer_zoo.tuning.telling import searched

            page = write_html(
                results,
                options.output / "report.html",
                datasets=[load(data) for data in suite.data],
                searches=searched(options.output),
                **told,
            )
            console.print(f"Report: {page}")
        except (MerZooError, ImportError) as error:
            console.print(f"No HTML report: {error}")
    return int(bool(failures) or not complete)


def _suite(options: argparse.Namespace) -> Suite:
    """Return the suite whose models are searched; a recipe stands for a suite of one model."""
    from mer_zoo.comparison import suite as suites
    from mer_zoo.model import recipe
    from mer_zoo.registry import document

    if options.protocol not in (None, "validation"):
        raise MerZooError(f"--protocol {options.protocol}: a search never sees test dialogues. Leave it out.")
    is_file = options.what.endswith((".yaml", ".yml"))
    page = document.read(recipe.find(options.what)).data if is_file else None
    is_suite = "models" in page if isinstance(page, dict) else options.what in suites.names()
    if is_suite:
        suite = suites.read(options.what)
    else:
        title = recipe.read(options.what).name
        data = options.data or ["synthetic"]
        suite = suites.checked({"title": title, "data": data, "models": {title: options.what}, "seeds": 5})
    changed: dict[str, Any] = {"data": options.data} if options.data else {}
    if options.seeds is not None:
        changed["seeds"] = options.seeds
    if options.split:
        changed["split"] = {**suite.split.plain(), **running.split_fields(options)}
    return suites.changed(suite, changed)


def _searches(options: argparse.Namespace, suite: Suite) -> list[tuple[Search, Any]]:
    """Return a search per model and dataset, with the dataset as the suite gives it."""
    from mer_zoo.comparison import suite as suites
    from mer_zoo.model.changes import changes_from
    from mer_zoo.tuning.search import Search
    from mer_zoo.tuning.space import narrowed

    found: list[tuple[Search, Any]] = []
    compute: dict[str, Any] = {"device": running.device_here(options), "options": running.compute_options(options)}
    how = compute | {"seeds": options.trial_seeds, "trials": options.trials, "folder": options.output}
    for name in suite.models:
        if name + TUNED in suite.models or len(name + TUNED) > suites.LONGEST:
            raise MerZooError(
                f"'{short(name)}': what is found gets '{TUNED}' behind its name. Call it otherwise, or shorter."
            )
    suites.experiments(suite, changes=options.change, **compute)  # whatever is wrong with it
    for data in suite.data:
        for name, entry in suite.models.items():
            given = [] if suite.is_learner(name) else list(changes_from(options.change))
            changes = (*suite.changes(name), *given)
            search = Search.of(entry.recipe, data, name=name, changes=changes, split_rule=suite.split, **how)
            there = replace(search.experiment, device=options.device)
            found.append((replace(search, experiment=there), data))
    spaces = narrowed([search.space for search, _ in found], options.keys, "--keys")
    found = [
        (replace(search, space=space), data)
        for (search, data), space in zip(found, spaces, strict=True)
        if space.choices
    ]
    if not found:
        raise MerZooError(f"{options.what}: nothing to search. Give the recipe a `search` block.")
    return found


def _noted(trial: Any) -> str:
    """Return how a trial ended."""
    if trial.state.name != "COMPLETE":
        return f"trial {trial.number}: " + ("failed" if "failed" in trial.user_attrs else "stopped early")
    return f"trial {trial.number}: validation {100 * trial.value:.1f}"
