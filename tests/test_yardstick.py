"""The plain forms that our layers are timed against compute the same."""

import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
if not FOLDER.exists():
    pytest.skip("benchmarks are not installed here", allow_module_level=True)
sys.path.insert(0, str(FOLDER))

from shapes import SMALL, task  # noqa: E402
from yardstick import Plain  # noqa: E402

from mer_zoo.model.assembly import assemble  # noqa: E402

MEASURED = ["mmgcn/iemocap", "dialoguegcn/mianzhang"]  # by benchmarks/all.py, one of them with padding shown


@pytest.mark.parametrize(
    "name", ["amb_dsgdn", "mmgcn", "dialoguegcn", "dialoguernn", "dialoguernn with listeners", "dag_erc", *MEASURED]
)
def test_plain_forms_equal_ours(name):
    name, listens, _ = name.partition(" with listeners")
    cell = task(name, SMALL, **({"model__context__encoder__listener": True} if listens else {}))
    model = assemble(cell.plan, cell.facts).eval()
    plain, labels = Plain(model, cell)([2, 0, 5])
    batch = cell.train.batch([2, 0, 5])
    ours = model(batch)
    assert torch.equal(labels, batch.labels)
    torch.testing.assert_close(plain.logits, ours.logits, atol=2e-5, rtol=1e-4)
    names, parameters = zip(*((n, p) for n, p in model.named_parameters()), strict=True)
    slopes = [
        torch.autograd.grad(x.logits.sin().sum(), parameters, allow_unused=True) for x in (plain, ours)
    ]  # fmt: skip
    for parameter, ours_slope, theirs in zip(names, slopes[1], slopes[0], strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours_slope, theirs, atol=1e-4, rtol=1e-3, msg=lambda m, n=parameter: f"{n}: {m}")
