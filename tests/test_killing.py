"""Kills and neighbours: a suite that is killed, or done by two processes at once, ends in the same files."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import killing
import pytest

from mer_zoo.cli import main
from mer_zoo.comparison.claims import claim, sweep
from mer_zoo.training import checkpoint

POSIX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="signals and processes of Linux")


@POSIX
@pytest.mark.attack("H3")
def test_a_suite_that_is_killed_ends_in_the_files_of_an_undisturbed_one(tmp_path):
    random.seed(0)
    killing.run(2, tmp_path, epochs=1)


NOTING = """
import os
import time

from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.training import checkpoint

checkpoint.EVERY, checkpoint.SHARE = 0.0, float("inf")  # a checkpoint behind every epoch


class Noting(Balancing):
    def on_epoch_start(self, epoch, collect):
        if epoch:  # epochs 0 are also rehearsed
            with open(NOTES, "a") as notes:
                notes.write(f"{epoch} ")
        while epoch == 3 and os.path.exists(STAY):
            time.sleep(0.05)
"""


def noting(folder, monkeypatch):
    """Return a file with a part that writes its epochs into `notes`, and waits in epoch 3 while there is a `stay`.

    Whatever process reads it writes a checkpoint behind every epoch; this one does so until the test ends.
    """
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    part = folder / "own.py"
    part.write_text(f"NOTES, STAY = {str(folder / 'notes')!r}, {str(folder / 'stay')!r}\n{NOTING}")
    return part


@POSIX
@pytest.mark.attack("H3")
def test_a_suite_that_is_killed_within_a_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    notes, stay, part, folder = (
        tmp_path / "notes",
        tmp_path / "stay",
        noting(tmp_path, monkeypatch),
        tmp_path / "killed",
    )
    mine = {"recipe": "bilstm", "change": {"balancing": f"{part}:Noting", "training.epochs": 5}}
    data = {"name": "synthetic", "dialogues": [6, 3, 3], "utterances": [3, 8]}
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps({"title": "k", "data": [data], "models": {"A": "majority", "B": mine}, "seeds": 1}))
    command = ["compare", str(plan), "--workers", "1", "--keep-weights", "--output"]
    stay.touch()
    process = subprocess.Popen([sys.executable, "-m", "mer_zoo", *command, folder], stdout=subprocess.DEVNULL)
    while not notes.exists() or notes.read_text().split()[-1:] != ["3"]:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    stay.unlink()
    assert [path.name[0] for path in folder.glob("*.result.json")] == ["A"]
    assert [path.name[0] for path in folder.glob("*.checkpoint")] == ["B"]
    assert main([*command, str(folder)]) == 0
    assert notes.read_text().split() == ["1", "2", "3", "3", "4"]  # from the checkpoint, not from the beginning
    assert main([*command, str(tmp_path / "undisturbed")]) == 0
    assert killing.files(folder) == killing.files(tmp_path / "undisturbed")
    assert list(folder.glob("*.checkpoint")) == []


RACER = """
import sys
from pathlib import Path
from mer_zoo.comparison import executing
from mer_zoo.cli import main

kept = executing.keep

def keep(experiment, outcome, folder, **options):
    path = kept(experiment, outcome, folder, **options)
    with open(Path(folder).with_suffix(".written"), "a") as log:
        log.write(path.name + "\\n")
    return path

executing.keep = keep
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.attack("H4")
def test_two_processes_on_one_folder_share_the_work_and_write_no_file_twice(tmp_path):
    plan, output = tmp_path / "s.yaml", tmp_path / "runs"
    plan.write_text(killing.SUITE.format(epochs=2))
    command = [sys.executable, "-c", RACER, "compare", plan, "--output", output, "--workers", "1", "--keep-weights"]
    both = [subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    for process in both:
        said = process.communicate(timeout=300)[0].decode()
        assert process.returncode == 0, said
    written = (tmp_path / "runs.written").read_text().split()
    assert len(written) == len(set(written)) == 6
    assert sorted(written) == sorted(path.name for path in output.glob("*.result.json"))
    assert len((output / "summary.csv").read_text().splitlines()) == 7
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []


@POSIX
def test_a_claim_ends_with_its_process(tmp_path):
    code = "import os, sys; from pathlib import Path; from mer_zoo.comparison.claims import claim\n"
    code += "held = claim(Path(sys.argv[1]), 'f00d'); print(held.__enter__(), flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stdout == "True\n"
    assert (tmp_path / ".f00d.claim").exists()
    with claim(tmp_path, "f00d") as mine:
        assert mine
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_swept_and_what_is_claimed_is_not(tmp_path):
    dead, alive = "0123456789abcdef", "fedcba9876543210"
    for run in (dead, alive):
        (tmp_path / f".m-d-seed0-{run}.safetensors.12345678.tmp").write_text("half")
    (tmp_path / f".{dead}.claim").write_text("")
    (tmp_path / ".mine.tmp").write_text("")
    with claim(tmp_path, alive):
        sweep(tmp_path)
        left = {f".m-d-seed0-{alive}.safetensors.12345678.tmp", f".{alive}.claim", ".mine.tmp"}
        assert {path.name for path in tmp_path.iterdir()} == left
