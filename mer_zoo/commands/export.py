"""`mer-zoo export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mer_zoo.commands import terminal


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("run", metavar="RUN", type=Path, help="a .result.json whose weights lie beside it")
    command.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="folder to write, a new one")
    command.add_argument("--onnx", action="store_true", help="write model.onnx too, checked against the model")
    command.add_argument(
        "--trust", metavar="PART", action="append", default=[], help="a part by file or module that --onnx may run"
    )


def run(options: argparse.Namespace) -> None:
    """Write a trained model into a folder to hand on: weights, recipe and model card."""
    from mer_zoo.comparison.exporting import export

    terminal.say(export(options.run, options.to, onnx=options.onnx, trust=options.trust))
