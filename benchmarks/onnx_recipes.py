"""Which recipes can be handed on as ONNX, tried: one by one, untrained, at the widths they ask for.

    python benchmarks/onnx_recipes.py

Writes `benchmarks/results/onnx.md`, which the docs show.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

import onnxruntime
import torch

from mer_zoo.checking.small_data import conversations
from mer_zoo.data.normalising import Normaliser
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, onnx, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.saving import Saved

RESULT = Path(__file__).parent / "results" / "onnx.md"


def untrained(name: str) -> Saved:
    """Return a recipe's model with the weights it begins with."""
    file = recipe.read(name)
    asked = file.recipe.modalities
    widths = asked if isinstance(asked, dict) else {"text": 32, "audio": 24, "visual": 16}
    plan = filling.fill(file, widths)
    classes = 7 if "meld" in name else 6  # what the published models have
    torch.manual_seed(0)
    model = assemble(plan, Facts(plan.modalities, 2, classes, (3,) * classes, 9)).eval()
    normaliser = Normaliser.fit(conversations([9, 9], widths=widths), plan.normalise)
    return Saved(model, name, plan, tuple(f"class {number}" for number in range(classes)), "untrained", normaliser)


def tried(name: str, folder: Path) -> tuple[str, str]:
    """Return the size of a recipe's ONNX file in MB, or why there is none."""
    saved = untrained(name)
    try:
        onnx.write(saved, folder / "model.onnx")
    except MerZooError as error:
        return "no", str(error).partition("as ONNX: ")[2].rpartition(". Export")[0]
    return "yes", f"{(folder / 'model.onnx').stat().st_size / 1e6:.1f} MB"


def main() -> None:
    """Try all recipes and write the table."""
    lines = [
        f"Tried with torch {torch.__version__} and onnxruntime {onnxruntime.__version__} on {datetime.date.today()} "
        "(`python benchmarks/onnx_recipes.py`).",
        "",
        "| recipe | ONNX | size, or why not |",
        "|:--|:--|:--|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in recipe.names():
            if recipe.read(name).recipe.learner is None:
                lines.append(f"| `{name}` | {' | '.join(tried(name, Path(folder)))} |")
                print(lines[-1], flush=True)
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
