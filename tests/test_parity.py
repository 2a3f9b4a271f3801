"""Our recipes compute what the published implementations compute, number for number."""

from pathlib import Path

import numpy as np
import pytest

from mer_zoo.batch import launch_cost
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment
from mer_zoo.model import parity

FOLDER = Path(__file__).parent / "parity"
MODELS = [
    "amb_dsgdn_iemocap",
    "amb_dsgdn_meld",
    "dialoguegcn",
    "dialoguegcn_mianzhang",
    "mmgcn",
    "bclstm",
    "bclstm_attention",
]


@pytest.mark.parametrize(
    "kernel", [None, Segment, Dense, Band, Planes, DGL], ids=lambda k: k.__name__ if k else "chosen"
)
@pytest.mark.parametrize("launches", ["cheap", "costly"])
@pytest.mark.parametrize("name", MODELS)
def test_parity(name, launches, kernel):
    with launch_cost.assumed(launches == "costly"):
        differences = parity.check(FOLDER / f"{name}.npz", kernel)
    assert [d for d in differences if not d.passes] == []
    assert {d.quantity for d in differences} >= {"loss.total", "loss of step 4", "logits of dialogue 1"}
    assert sum(d.quantity.startswith("gradient") for d in differences) > 15


@pytest.mark.parametrize("name", MODELS)
def test_a_small_deviation_is_noticed(name, tmp_path):
    with np.load(FOLDER / f"{name}.npz") as archive:
        arrays = dict(archive)
    key = [k for k in arrays if k.startswith("weight.") and k.endswith("bias")][-1]  # of the classifier, in every file
    arrays[key] = arrays[key] * 1.01
    np.savez(tmp_path / f"{name}.npz", **arrays)
    assert any(not d.passes for d in parity.check(tmp_path / f"{name}.npz"))


def test_a_file_of_unknown_name_is_refused(tmp_path):
    (tmp_path / "mmgcm.npz").write_bytes(b"")
    with pytest.raises(MerZooError, match="Did you mean 'mmgcn'"):
        parity.check(tmp_path / "mmgcm.npz")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "mmgcn.npz").write_bytes(b"not a zip archive")
    with pytest.raises(MerZooError, match="not a parity file"):
        parity.check(tmp_path / "mmgcn.npz")
