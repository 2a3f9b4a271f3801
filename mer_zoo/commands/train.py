"""`mer-zoo train`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from mer_zoo.commands import running, terminal
from mer_zoo.commands.progress import Bar
from mer_zoo.errors import MerZooError

STOPPED = "its last checkpoint, if it came to one, is kept; --resume goes on from there."


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("recipe", metavar="RECIPE", help="a name of `mer-zoo list recipe`, or a YAML file")
    command.add_argument("--data", default="synthetic", help="a dataset's name or folder (synthetic)")
    command.add_argument("--seed", type=int, default=0, help="decides weights, order and dropout (0)")
    command.add_argument("--fold", type=int, help="which fold is the test, for data without a test split (the first)")
    running.noting_arguments(command)
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint of a run that was stopped")
    running.arguments(command)


def run(options: argparse.Namespace) -> int:
    """Train one recipe on one dataset."""
    from mer_zoo.comparison.claims import claim
    from mer_zoo.comparison.executing import written
    from mer_zoo.comparison.report import comparison_table
    from mer_zoo.comparison.tracking import Tracking
    from mer_zoo.data.splits import rule_of
    from mer_zoo.results.identity import protocol_of
    from mer_zoo.results.result import SUFFIX
    from mer_zoo.results.writing import check_writable
    from mer_zoo.training.checkpoint import Checkpoints
    from mer_zoo.training.experiment import check_room, keep, prepare

    how = {"seed": options.seed, "device": options.device, "options": running.compute_options(options)}
    how["split_rule"] = rule_of(running.split_fields(options), lambda *keys: "--split " + ".".join(map(str, keys)))
    how["protocol"] = protocol_of(options.protocol or "validation")
    experiment = prepare(options.recipe, options.data, changes=options.change, fold=options.fold, **how)
    experiment.rehearse()
    check_writable(options.output)
    check_room([experiment], options.output, weights=True)
    if options.resume and experiment.plan.learner is not None:
        terminal.say(f"{experiment.name} is fitted as a whole: there is nothing to resume.", sys.stderr)
    tracking = Tracking(running.trackers(options), options.output, partial(terminal.say, file=sys.stderr))
    with claim(options.output, experiment.identity.run) as mine:
        if not mine:
            raise MerZooError(f"{options.output}: another process is at this run. Wait for it, or change --output.")
        result = written(options.output, experiment, keep_weights=True) if options.resume else None
        if result is not None:
            terminal.say("This run is whole already: nothing is left to train.", sys.stderr)
        else:
            with tracking.watching(experiment), Bar(experiment.plan.training.epochs, experiment.name) as bar:
                outcome = experiment.run(bar.epoch, Checkpoints(options.output, options.resume, strict=True))
            keep(experiment, outcome, options.output, weights=True)
            result = outcome.result
    tracked = tracking.finish([result])
    terminal.console().print(comparison_table([result]))
    path = options.output / result.file_name
    if experiment.plan.learner is not None:  # it is fitted again instead of kept
        terminal.say(f"Result: {path}")
    else:
        terminal.say(f"Model and result: {str(path).removesuffix(SUFFIX)}.{{safetensors,result.json}}")
    return int(not tracked)
