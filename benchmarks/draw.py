"""Draw the plots of `docs/performance.md` from committed results: `python benchmarks/draw.py [RESULT.json]`.

A question is drawn from the first result file that answers it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
PLOTS = ROOT.parent / "docs" / "assets"


def draw(found: dict[str, Any]) -> None:
    """Write one SVG for each question that the file answers."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "mer_zoo", "svg.fonttype": "none", "font.size": 10})
    import matplotlib.pyplot as plt

    long = [row for row in found.get("lengths", []) if "kernel" in row]
    curves = {
        "dialogue-length": (
            "utterances in a dialogue",
            "µs per utterance, forward and backward",
            {
                k: [(r["utterances"], r["microseconds_per_utterance"]) for r in long if r["kernel"] == k]
                for k in ("Band", "Segment", "Dense")
            },
        ),
        "batch-size": (
            "dialogues per step",
            "seconds per epoch",
            {"amb_dsgdn": [(r["dialogues_per_batch"], r["seconds"]) for r in found.get("batch_sizes", [])]},
        ),
        "seeds": (
            "seeds stacked",
            "seconds per epoch and seed",
            {"amb_dsgdn": [(r["seeds"], r["seconds"] / r["seeds"]) for r in found.get("seeds", [])]},
        ),
        "models": (
            "models in the suite",
            "seconds per epoch of all",
            {"default suite": _running([r["seconds"] for r in found.get("recipes", [])])},
        ),
    }
    PLOTS.mkdir(parents=True, exist_ok=True)
    for name, (across, up, lines) in curves.items():
        if not any(lines.values()):
            continue
        figure, axes = plt.subplots(figsize=(5, 3.2))
        for label, points in lines.items():
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=label)
        axes.set(xlabel=across, ylabel=up)
        if name == "models":
            axes.set_xticks([x for x, _ in lines["default suite"]])
        else:
            axes.set(xscale="log", yscale="log" if name == "dialogue-length" else "linear")
        if name != "dialogue-length":
            axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(PLOTS / f"speed-{name}.svg", metadata={"Date": None})
        plt.close(figure)


def tables(found: dict[str, Any]) -> None:
    """Write the tables that the page includes."""
    machine = found["machine"]
    where = f"{machine['device']}, torch {machine['torch']}, {machine['threads']} thread(s)"
    common = ["epoch, s", "first epoch, s", "operations per step", "the same as a GPU would launch them"]

    def numbers(r: dict[str, Any]) -> list[Any]:
        launches = r["launches_per_step"]
        return [r["seconds"], r["first_epoch"], launches, r.get("gpu_launches_per_step", launches)]

    rows = [
        [
            f"`{r['recipe']}`",
            r["shape"],
            *numbers(r),
            r["plain"]["seconds"],
            f"{r['plain']['seconds'] / r['seconds']:.1f}×",
        ]
        for r in found.get("models", [])
    ]
    _write("models", where, ["recipe", "shape", *common, "plain, s", "ratio"], rows)
    rows = [
        [
            f"`{r['recipe']}`",
            r["shape"],
            r["ours"]["cpu_seconds"],
            r["plain"]["cpu_seconds"],
            f"{r['times_faster_than_plain']:.1f}×",
            r["load"],
        ]
        for r in found.get("sequential", [])
    ]
    heads = ["recipe", "shape", "step, s of processor time", "plain, s of processor time", "ratio", "load"]
    _write("sequential", where, heads, rows)
    rows = [[f"`{r['recipe']}`", *numbers(r)] for r in found.get("recipes", [])]
    _write("recipes", where, ["recipe", *common], rows)
    heads = ["utterances in a dialogue", "kernel", "µs per utterance", "peak memory of the process, MB"]
    rows = [
        [f"{r['utterances']:,}", r["kernel"], r["microseconds_per_utterance"], r["peak_mb"]]
        for r in found.get("lengths", [])
        if "kernel" in r
    ]
    _write("lengths", where, heads, rows)


def _write(name: str, where: str, heads: list[str], rows: list[list[Any]]) -> None:
    if not rows:
        return

    def text(value: Any) -> str:
        return (
            f"{value:.3g}"
            if isinstance(value, float) and value < 100
            else str(round(value) if isinstance(value, float) else value)
        )

    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(text(value) for value in row) + " |" for row in rows]
    (PLOTS / f"speed-{name}.inc").write_text("\n".join([*lines, "", f"*{where}*", ""]))


def _running(values: list[float]) -> list[tuple[int, float]]:
    return [(i + 1, sum(values[: i + 1])) for i in range(len(values))]


if __name__ == "__main__":
    for chosen in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted((ROOT / "results").glob("*.json"), reverse=True):
        draw(json.loads(chosen.read_text()))
        tables(json.loads(chosen.read_text()))
