"""`mer-zoo predict`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from mer_zoo.commands import terminal
from mer_zoo.errors import MerZooError


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument(
        "run", metavar="RUN", type=Path, help="a .safetensors or .result.json of `train`, or an exported folder"
    )
    command.add_argument("--data", required=True, help="a dataset's name or folder; labels are not needed")
    command.add_argument("--output", metavar="FILE", type=Path, help="JSON file to write, a new one (the terminal)")
    command.add_argument(
        "--trust", metavar="PART", action="append", default=[], help="a part by file or module that may be run"
    )
    command.add_argument("--json", action="store_true", help="machine-readable")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")


def run(options: argparse.Namespace) -> None:
    """Predict emotions of dialogues."""
    from mer_zoo.data.loading import load
    from mer_zoo.model.saving import load as load_model
    from mer_zoo.results.writing import check_writable, write_atomically
    from mer_zoo.training.options import check_device

    check_device(options.device)
    saved, dataset = load_model(options.run, trust=options.trust), load(options.data)
    if options.output is not None:
        if os.path.lexists(options.output):
            raise MerZooError(f"{options.output}: exists already, so it is left alone. Name a new file.")
        check_writable(options.output.parent)
    found = saved.predict(dataset.conversations, options.device)
    if options.output is None and not options.json:
        for dialogue, rows in found.items():
            for turn, row in enumerate(rows):
                terminal.say(f"{dialogue}  {turn:>3}  {saved.label_names[row.argmax()]:<12} {row.max():.2f}")
        return
    text = json.dumps(
        {
            dialogue: {
                "predicted": [saved.label_names[i] for i in rows.argmax(-1)],
                "probability": [[round(p, 6) for p in row] for row in rows.tolist()],
            }
            for dialogue, rows in found.items()
        }
    )
    if options.output is None:
        print(text)
    else:
        write_atomically(options.output, text)
        terminal.say(options.output)
