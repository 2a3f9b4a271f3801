"""The script that a session with a GPU runs first loses nothing: neither to a fault, nor to the clock."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
if not FOLDER.exists():
    pytest.skip("benchmarks are not installed here", allow_module_level=True)
sys.path.insert(0, str(FOLDER))

import gpu  # noqa: E402
import targets  # noqa: E402


def test_every_row_is_kept_when_the_next_one_fails(tmp_path, monkeypatch):
    def breaks(**_):
        yield {"a": 1.23456789}
        raise ValueError("second row")

    monkeypatch.setitem(gpu.STAGES, "machine", (breaks, 9))
    with pytest.raises(ValueError, match="second row"):
        gpu.perform("machine", "cpu", True, tmp_path, 9)
    found = json.loads((tmp_path / "machine.json").read_text())
    assert (found["rows"], found["finished"]) == ([{"a": 1.235}], False)
    assert "second row" in found["error"]


def test_a_stage_ends_with_its_time_and_all_that_it_started(tmp_path):
    child = f"import os, time; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.perf_counter()
    assert gpu.within([sys.executable, "-c", parent], 3).startswith("out of time after 3 s")
    assert time.perf_counter() - began < 50  # the child would stay a minute
    number = int((tmp_path / "child").read_text())
    for _ in range(50):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{number}/stat").exists() and Path(f"/proc/{number}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it goes on")


def test_what_became_of_a_stage_is_told():
    assert gpu.within([sys.executable, "-c", ""], 30) == "done"
    assert gpu.within([sys.executable, "-c", "raise SystemExit(3)"], 30) == "failed (3)"


def test_the_table_of_the_cpu_is_read_and_judged():
    assert gpu.TABLE.exists()
    assert gpu.agree([50.0, 51.0, 52.0], [50.5, 51.5, 51.0])["verdict"] == "agrees"
    assert gpu.agree([50.0, 50.1, 50.2], [60.0, 60.1, 60.2])["verdict"] == "differs"
    assert gpu.agree([4.3, 4.3, 4.3], [4.3, 4.3])["verdict"] == "agrees"
    assert gpu.agree([4.3, 4.3, 4.3], [5.3, 5.3])["verdict"] == "differs"


def test_a_target_is_met_or_missed_by_name():
    assert targets.verdict(["bf16"], quick=False) == "met in bf16"
    assert targets.verdict([], quick=False) == "missed"
    assert targets.verdict(["float32"], quick=True) == "not judged: other sizes"
    assert len({target.name for target in targets.TARGETS}) == len(targets.TARGETS)


def test_the_machine_stage_runs(tmp_path):
    gpu.perform("machine", "cpu", True, tmp_path, 9)
    found = json.loads((tmp_path / "machine.json").read_text())
    assert found["finished"]
    assert {"device", "torch", "dgl", "python"} <= found["rows"][0].keys()
