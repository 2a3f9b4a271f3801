"""`mer-zoo train`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from mer_zoo.commands import running, terminal
from mer_zoo.commands.progress import Bar

STOPPED = "nothing of this run is kept."


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("recipe", metavar="RECIPE", help="a name of `mer-zoo list recipe`, or a YAML file")
    command.add_argument("--data", default="synthetic", help="a dataset's name or folder (synthetic)")
    command.add_argument("--seed", type=int, default=0, help="decides weights, order and dropout (0)")
    command.add_argument("--fold", type=int, help="which fold is the test, for data without a test split (the first)")
    running.track_argument(command)
    running.arguments(command)


def run(options: argparse.Namespace) -> int:
    """Train one recipe on one dataset."""
    from mer_zoo.comparison.report import comparison_table
    from mer_zoo.comparison.tracking import Tracking
    from mer_zoo.data.splits import rule_of
    from mer_zoo.results.identity import protocol_of
    from mer_zoo.results.result import SUFFIX
    from mer_zoo.results.writing import check_writable
    from mer_zoo.training.experiment import check_room, keep, prepare

    how = {"seed": options.seed, "device": options.device, "options": running.compute_options(options)}
    how["split_rule"] = rule_of(running.split_fields(options), lambda *keys: "--split " + ".".join(map(str, keys)))
    how["protocol"] = protocol_of(options.protocol or "validation")
    experiment = prepare(options.recipe, options.data, changes=options.change, fold=options.fold, **how)
    experiment.rehearse()
    check_writable(options.output)
    check_room([experiment], options.output, weights=True)
    tracking = Tracking(running.trackers(options), options.output, partial(terminal.say, file=sys.stderr))
    with tracking.watching(experiment), Bar(experiment.plan.training.epochs, experiment.name) as bar:
        outcome = experiment.run(bar.epoch)
    path = keep(experiment, outcome, options.output, weights=True)
    tracked = tracking.finish([outcome.result])
    terminal.console().print(comparison_table([outcome.result]))
    if outcome.model is None:  # a learner, which is fitted again instead of kept
        terminal.say(f"Result: {path}")
    else:
        terminal.say(f"Model and result: {str(path).removesuffix(SUFFIX)}.{{safetensors,result.json}}")
    return int(not tracked)
