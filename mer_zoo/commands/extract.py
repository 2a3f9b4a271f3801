"""`mer-zoo extract`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mer_zoo import registry
from mer_zoo.commands import terminal


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("extractor", help="a name of `mer-zoo list extractor`")
    command.add_argument("data", metavar="DATA", help="a dataset's name, or a folder that `import` made")
    command.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="container to write")
    command.add_argument("-o", "--change", metavar="KEY=VALUE", action="append", default=[], help="a setting")


def run(options: argparse.Namespace) -> None:
    """Make a modality anew from the transcripts."""
    from mer_zoo.data.container import write_dataset
    from mer_zoo.data.extraction import extract
    from mer_zoo.data.loading import load
    from mer_zoo.model.changes import settings_from

    settings = settings_from(options.change)
    card = registry.find("extractor", options.extractor)
    extractor = registry.build(card, settings, {}, "-o" if settings else "")
    dataset = extract(load(options.data), extractor, card.name)
    widths = ", ".join(f"{modality} {width}" for modality, width in dataset.widths.items())
    terminal.say(f"{write_dataset(dataset, options.output)}: {widths}")
