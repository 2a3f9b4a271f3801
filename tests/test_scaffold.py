"""A new part of every kind runs as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mer_zoo import registry
from mer_zoo.checking import check_part
from mer_zoo.commands.new import new
from mer_zoo.errors import MerZooError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_new_part_passes_its_check(kind, tmp_path):
    files = new(kind, "fresh_part", tmp_path)
    target = "fresh_part" if kind == "dataset" else "FreshPart"
    name = f"{tmp_path}/fresh_part.py:{target}"
    card = registry.find(kind, name)
    assert card.name == name
    assert card.summary == "Say in one sentence what it does."  # the card beside the file
    check_part(kind, name)
    assert len(files) == 3
    for path in files:
        assert "{{" not in path.read_text()


def test_it_is_tidy(tmp_path):
    for kind in registry.KINDS:
        new(kind, "fresh_part", tmp_path / kind)
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", ROOT / "pyproject.toml", tmp_path]
        assert subprocess.run(command, capture_output=True, text=True).stdout.strip().endswith(("passed!", "formatted"))


def test_its_test_runs(tmp_path):
    new("head", "fresh_part", tmp_path)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tmp_path, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        check=True,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
    )


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("fuson", "x", "no kind of part named 'fuson'. Did you mean 'fusion'?"),
        (
            "fusion",
            "MyFusion",
            "'MyFusion' is not a name for a part. Use small letters, digits and underscores, such as",
        ),
        ("fusion", "class", "'class' is not a name for a part."),
        ("fusion", "../evil", "'../evil' is not a name for a part."),
        ("fusion", "there", "there.yaml exists already. Choose another name or folder."),
    ],
)
def test_refusals(kind, name, message, tmp_path):
    (tmp_path / "there.yaml").write_text("")
    with pytest.raises(MerZooError, match=re.escape(message)):
        new(kind, name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
