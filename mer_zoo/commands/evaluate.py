"""`mer-zoo evaluate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mer_zoo.commands import terminal
from mer_zoo.errors import MerZooError, nearest


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("run", metavar="RUN", type=Path, help="a .safetensors or .result.json that `train` wrote")
    command.add_argument("--data", default="synthetic", help="a dataset's name or folder (synthetic)")
    command.add_argument("--split", default="test", help="train, validation, test or all (test)")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")
    command.add_argument(
        "--trust", metavar="PART", action="append", default=[], help="a part by file or module that may be run"
    )
    command.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> None:
    """Score a trained model on a split."""
    import numpy as np
    from rich.table import Table

    from mer_zoo.data.loading import load
    from mer_zoo.data.splits import split_dataset
    from mer_zoo.model.saving import load as load_model
    from mer_zoo.results.metrics import SCORES, score
    from mer_zoo.training.options import check_device

    if options.split not in (splits := ("train", "validation", "test", "all")):
        raise MerZooError(f"no split '{options.split}'.{nearest(options.split, splits)}")
    check_device(options.device)
    saved, dataset = load_model(options.run, trust=options.trust), load(options.data)
    if tuple(dataset.label_names) != saved.label_names:
        raise MerZooError(
            f"model '{saved.name}' knows the classes {', '.join(saved.label_names)}, but dataset '{dataset.name}' has "
            f"{', '.join(dataset.label_names)}. Use data with the same classes in the same order."
        )
    dialogues = dataset.conversations
    if options.split != "all":
        dialogues = dataset.select(getattr(split_dataset(dataset, saved.fold or 0), options.split))
    predicted = saved.predict(dialogues, options.device)
    labels = np.concatenate([dialogue.labels for dialogue in dialogues])
    found = np.concatenate([predicted[dialogue.id].argmax(-1) for dialogue in dialogues])
    scores = score(labels, found, dataset.label_names)
    if options.json:
        print(json.dumps(scores, indent=1))
        return
    table = Table("class", "precision", "recall", "F1", "support")
    table.title = f"{saved.name} on {dataset.name}, {options.split}"
    for name, row in scores["per_class"].items():
        table.add_row(name, *(f"{row[k]:.3f}" for k in ("precision", "recall", "f1")), str(row["support"]))
    terminal.console().print(table)
    print("  ".join(f"{name.replace('_', ' ')} {scores[name]:.4f}" for name in SCORES))
