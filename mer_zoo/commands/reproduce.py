"""`mer-zoo reproduce`."""

from __future__ import annotations

import argparse
from typing import Any

from mer_zoo.commands import running, terminal
from mer_zoo.commands.progress import Bar
from mer_zoo.errors import MerZooError

STOPPED = "finished results are kept; run it again to go on."


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("recipe", metavar="RECIPE", help="a recipe with published scores")
    command.add_argument("--data", required=True, help="the data that the scores are about, by name or folder")
    command.add_argument("--seeds", type=int, default=6, help="seeds (6)")
    command.add_argument("--workers", type=int, help="processes (one per processor)")
    running.track_argument(command)
    running.arguments(command)


def run(options: argparse.Namespace) -> int:
    """Set the scores that a paper claims beside ours, chosen on validation and on test."""
    from rich.table import Table

    from mer_zoo.comparison import suite as suites
    from mer_zoo.comparison.executing import Listener, execute
    from mer_zoo.comparison.repeating import claims
    from mer_zoo.comparison.tracking import Tracking
    from mer_zoo.model import recipe

    if options.protocol is not None:
        raise MerZooError("--protocol: both rules are always shown. Leave it out.")
    file = recipe.read(options.recipe)
    if not file.recipe.published:
        raise MerZooError(f"{options.recipe}: it quotes no published score, so there is nothing to reproduce.")
    plan: dict[str, Any] = {"title": file.name, "data": [options.data], "models": {file.name: options.recipe}}
    plan |= {"seeds": options.seeds, "protocol": "test-oracle"}
    plan |= {"split": running.split_fields(options)} if options.split else {}
    how: dict[str, Any] = {"device": options.device, "options": running.compute_options(options)}
    runs = suites.experiments(suites.checked(plan), changes=options.change, **how)
    console, trackers = terminal.console(), running.trackers(options)
    with Bar(len(runs), "runs") as bar:
        tracking = Tracking(trackers, options.output, bar.say)
        listener = tracking.listener(Listener(bar.start, bar.run, bar.epoch_of_run, bar.say))
        results, failures = execute(runs, options.output, workers=options.workers, listener=listener)
        tracked = tracking.finish([*results, *failures])
    if failures:
        return 1
    table = Table("published on", "score", "claim", "chosen on", "ours, validation", "ours, test")
    found = claims(file.recipe.published, results)
    for one in found:
        claim = one.published
        ours = (f"{100 * x.value:.1f} [{100 * x.low:.1f}, {100 * x.high:.1f}]" for x in (one.honest, one.oracle))
        table.add_row(claim.dataset, claim.metric.replace("_", " "), f"{claim.value:.1f}", claim.selected_on, *ours)
    console.print(table)
    for one in found:
        name = one.published.metric.replace("_", " ")
        console.print(
            f"{one.published.dataset}, {name} {one.published.value:.1f} ({one.published.where}): {one.verdict}."
        )
    console.print(
        f"Ours: {options.data}, mean of {options.seeds} seeds, 95 % intervals for new seeds and new dialogues."
    )
    return int(not tracked)
