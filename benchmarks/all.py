"""Answer all questions of speed on this machine, in a few minutes, on a GPU or without.

    python benchmarks/all.py [--device cuda] [--quick] [--compile] [--only models,seeds] [--output FILE]

Writes `benchmarks/results/<device>-torch-<version>.json`; `python benchmarks/draw.py` makes the plots of the docs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
from shapes import IEMOCAP, MELD, SMALL, Shape, task

import mer_zoo
from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.graph.complete_multimodal import CompleteMultimodal
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.segment import Segment
from mer_zoo.parts.layer.differential_gat import DifferentialGAT
from mer_zoo.training.engines import why_not_stacked
from mer_zoo.training.options import ComputeOptions as Options

RESULTS = Path(__file__).resolve().parent / "results"
MODELS = [
    ("amb_dsgdn/iemocap", IEMOCAP),
    ("amb_dsgdn/meld", MELD),
    ("mmgcn/iemocap", IEMOCAP),
    ("dialoguegcn/mianzhang", IEMOCAP),
]
SEQUENTIAL = [
    ("dialoguernn", SMALL),
    ("dag_erc", SMALL),
    ("dialoguernn/meld", MELD),
    ("dag_erc/meld", MELD),
    ("dag_erc/iemocap", IEMOCAP),
    ("dialoguernn/iemocap", IEMOCAP),
    ("dialoguernn/listener", IEMOCAP),
]
PUBLISHED = {("amb_dsgdn/iemocap", "iemocap"): 3.9, ("amb_dsgdn/meld", "meld"): 4.8, ("mmgcn/iemocap", "iemocap"): 1.7}
"""Seconds of train + test epoch of the published code on one H100."""


def device_name(device: str) -> str:
    """Name the device as result files are named."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        model = next((x.split(":")[1] for x in lines if x.startswith("model name")), platform.machine())
        name = f"{model} {torch.get_num_threads()} threads"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\([^)]*\)", "", name).lower()).strip("-")


def models(device: str, quick: bool, repeats: int, **_: Any) -> Iterator[dict[str, Any]]:
    """Each model beside its plain form, in the same run."""
    for recipe, shape in MODELS:
        cell = task(recipe, SMALL if quick else shape, device, training__epochs=9)
        found = measure.ours(cell, repeats=repeats)
        yardstick = measure.plain(cell)
        ratio = yardstick["seconds"] / found["seconds"]
        row = {"recipe": recipe, "shape": shape.name, **found, "plain": yardstick, "times_faster_than_plain": ratio}
        if (recipe, shape.name) in PUBLISHED and device != "cpu" and not quick:
            row["times_faster_than_published"] = PUBLISHED[recipe, shape.name] / found["seconds"]
        yield row


def sequential(device: str, quick: bool, repeats: int, **_: Any) -> Iterator[dict[str, Any]]:
    """Training steps of the models that walk along a dialogue beside steps of the plain form, taken in turns."""
    for recipe, shape in SEQUENTIAL:
        yield {
            "recipe": recipe,
            "shape": shape.name,
            **measure.beside(task(recipe, SMALL if quick else shape, device), repeats),
        }


def recipes(device: str, quick: bool, **_: Any) -> Iterator[dict[str, Any]]:
    """The small recipes that `compare` runs by default, on the synthetic dialogues; cost of the suite so far."""
    from mer_zoo.data.synthetic import synthetic
    from mer_zoo.training.experiment import prepare

    data = synthetic(dialogues=(24, 6, 8), utterances=(5, 12)) if quick else synthetic()
    total = 0.0
    for count, name in enumerate(("amb_dsgdn", "mmgcn", "dialoguegcn", "bilstm"), 1):
        found = measure.ours(prepare(name, data, device=device).task())
        total += found["seconds"]
        yield {"recipe": name, "shape": "synthetic", **found, "models": count, "seconds_of_all_so_far": total}


def ways(device: str, quick: bool, compile: bool, **_: Any) -> Iterator[dict[str, Any]]:
    """AMB-DSGDN in every way there is to compute it: precision, captured steps, compiled steps."""
    cell = task("amb_dsgdn/iemocap", SMALL if quick else IEMOCAP, device, training__epochs=9)
    gpu = device.startswith("cuda")
    choices = [Options(capture=False), Options(capture=True)]
    if gpu:
        choices += [
            Options("tf32", True),
            Options("bf16", False),
            Options("bf16", True),
            Options(deterministic=True),
        ]
    if compile:
        choices += [Options("bf16", True, compile=True)]
    for speed in choices:
        yield {"way": vars(speed), **measure.ours(cell, options=speed)}


def seeds(device: str, quick: bool, compile: bool, **_: Any) -> Iterator[dict[str, Any]]:
    """Seeds stacked into one program, as many as fit; on a GPU in bfloat16, captured."""
    gpu = device.startswith("cuda")
    change = {} if gpu or quick else {"training__dialogues_per_batch": 16}
    recipe, shape = ("amb_dsgdn/iemocap", IEMOCAP) if gpu and not quick else ("amb_dsgdn", SMALL)
    cell = task(recipe, shape, device, **change)
    assert why_not_stacked(cell) is None
    for count in (1, 2, 4, 8, 16, 32) if gpu else (1, 2, 4, 8):
        for precision in ("float32", "bf16") if gpu else ("float32",):
            speed = Options(precision, compile=compile)
            try:
                yield {
                    "seeds": count,
                    "recipe": recipe,
                    "precision": precision,
                    **measure.ours(cell, range(count), speed),
                }
            except torch.OutOfMemoryError:
                return


def batch_sizes(device: str, quick: bool, **_: Any) -> Iterator[dict[str, Any]]:
    """Dialogues per step, of one small recipe."""
    for size in (1, 4, 16, 64):
        cell = task("amb_dsgdn", SMALL if quick else _medium(), device, training__dialogues_per_batch=size)
        yield {"dialogues_per_batch": size, **measure.ours(cell)}


def _medium() -> Shape:
    return Shape("medium", (64, 1600), (8, 200), 60, {"text": 64, "audio": 64, "visual": 64}, 2, 6)


def lengths(device: str, quick: bool, **_: Any) -> Iterator[dict[str, Any]]:
    """One dialogue of ever more utterances through a windowed layer, forward and backward, by kernel."""
    for length in (100, 300, 1000, 3000, 10_000) if quick else (100, 300, 1000, 3000, 10_000, 30_000, 100_000):
        for kernel in (Band, Segment, Dense):
            if (kernel is Dense and length > 3000) or (kernel is Segment and length > 10_000):
                continue
            yield {"utterances": length, "kernel": kernel.__name__, **windowed(length, kernel, device)}
    try:
        CompleteMultimodal(("text", "audio", "visual"))(dialogue(20_000))
    except MerZooError as refusal:
        yield {"utterances": 20_000, "graph": "complete_multimodal", "refused": str(refusal)}


def dialogue(length: int) -> Conversation:
    """One dialogue of two speakers who speak at random."""
    speakers = np.random.default_rng(0).integers(0, 2, length)
    features = {"text": np.zeros((length, 1), np.float32)}
    return Conversation("long", tuple(f"s{i}" for i in speakers), np.zeros(length, int), features)


def windowed(length: int, kernel: Any, device: str, width: int = 64) -> dict[str, float]:
    """Time a differential GAT of both relations over a window of 20; short dialogues in batches of 3000 utterances."""
    views = [(("text",), ["self_loop", f"{who}_speaker_*"]) for who in ("other", "same")]
    count = max(1, 3000 // length)
    corpus = Corpus(
        [dialogue(length)] * count, SelfCrossSpeaker(("text",), window=20), views, kernels=kernel, device=device
    )
    layers = [DifferentialGAT(width, edges.names).to(device) for edges in corpus.batch([0]).views.values()]
    x = torch.randn(count * length, width, device=device, requires_grad=True)

    def step() -> None:
        h = x
        for layer, edges in zip(layers, corpus.batch(range(count)).views.values(), strict=True):
            h = layer(h, edges, None)
        h.sum().backward()

    with Options().computing():
        step()
        gc.collect()
        measure.memory.forget_peak(device)
        found = measure.timed(step, device, 7 if length <= 10_000 else 3)
    return {
        "microseconds_per_utterance": found["best_seconds"] / len(x) * 1e6,
        "cpu_microseconds_per_utterance": found["cpu_seconds"] / len(x) * 1e6,
        "peak_mb": measure.memory.peak(device),
    }


PARTS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "models": models,
    "sequential": sequential,
    "recipes": recipes,
    "ways": ways,
    "seeds": seeds,
    "batch_sizes": batch_sizes,
    "lengths": lengths,
}


def main() -> None:
    """Run all parts, or some; results of other parts in the file are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="threads on CPU (as torch chooses)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile: one to two minutes per shape")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=3, help="timed epochs of each model (3)")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    name = f"{device_name(options.device)}-torch-{torch.__version__.partition('+')[0]}"
    path = options.output or RESULTS / f"{name}{'-quick' * options.quick}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found["machine"] = {
        "device": device_name(options.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "mer_zoo": mer_zoo.__version__,
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    for part in options.only.split(","):
        began, rows = time.perf_counter(), []
        for row in PARTS[part](options.device, quick=options.quick, compile=options.compile, repeats=options.repeats):
            row["load"] = round(os.getloadavg()[0], 1)
            rows.append(row)
            found[part] = rows
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rounded(found), indent=1) + "\n")
            print(part, json.dumps(row, default=lambda x: round(float(x), 5)), flush=True)
        print(f"{part}: {time.perf_counter() - began:.0f} s -> {path}", flush=True)


def rounded(value: Any) -> Any:
    """Return numbers to four digits, wherever they stand."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
