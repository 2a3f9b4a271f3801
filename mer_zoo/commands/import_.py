"""`mer-zoo import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mer_zoo.commands import terminal
from mer_zoo.model.changes import settings_from


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("layout", metavar="LAYOUT", help="a name of `mer-zoo list importer`, such as csv or npz")
    command.add_argument("file", metavar="FILE", type=Path, help="the feature file")
    command.add_argument("--output", metavar="FOLDER", type=Path, help="container to write (the file's stem)")
    command.add_argument("--name", help="what reports call the dataset (the file's stem)")
    command.add_argument("-o", "--change", metavar="KEY=VALUE", action="append", default=[], help="a setting")


def run(options: argparse.Namespace) -> None:
    """Turn a feature file of the field into a folder mer-zoo reads."""
    from mer_zoo.data.container import write_dataset
    from mer_zoo.data.importing import import_dataset

    settings = settings_from(options.change)
    dataset = import_dataset(options.layout, options.file, options.name, settings, "-o" if settings else "")
    folder = write_dataset(dataset, options.output or Path(options.file.stem))
    count = sum(len(dialogue) for dialogue in dataset)
    terminal.say(f"{folder}: {len(dataset)} dialogues, {count} utterances, {', '.join(dataset.widths)}.")
    for task in dataset.conversations[0].targets:
        terminal.say(f"label column '{task}': {dataset.provenance.get(task, 'numbers')}")
    for warning in dataset.warnings:
        terminal.say(f"warning: {warning}", sys.stderr)
