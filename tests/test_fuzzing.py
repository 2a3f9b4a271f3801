"""A short piece of `make fuzz`, what it found before, and proof that its limits hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import guarded
from fuzzing.entries import Entry, entries, unfuzzed
from fuzzing.guarded import Child

from mer_zoo.errors import MerZooError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
HERE = Path(__file__).resolve().parent
CASES = 40  # per entry point; `make fuzz CASES=10000` tries more


@pytest.mark.attack("H6")
def test_whatever_a_file_holds_it_is_read_or_refused():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-m", "fuzzing", "--cases", str(CASES), "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == len(entries()) + 2, done.stdout


def test_every_importer_is_fuzzed():
    assert unfuzzed() == set()


def test_a_message_is_never_without_end():
    assert len(str(MerZooError("x" * 1_000_000))) < 5000
    assert str(MerZooError("x\n" * 1_000_000)).endswith("x\n… and 999,801 lines more.")
    assert str(MerZooError("a\nb")) == "a\nb"


def verdict_of(use, content=b""):
    """Return the verdict of a use of a file."""
    with Child(Entry("x", "x", [], None, use)) as child:
        return child.try_case(content), child.try_case(content)


def refuse(path):
    raise MerZooError("no")


def raise_other(path):
    raise KeyError("lost")


def stop(path):
    raise SystemExit(0)


def crash(path):
    os.abort()


def hang(path):
    while True:
        pass


def hoard(path):
    bytearray((guarded.MEGABYTES + 100) << 20)


@pytest.mark.parametrize(
    ("use", "kind", "text"),
    [
        (Path.read_bytes, "accepted", ""),
        (refuse, "refused", "no"),
        (raise_other, "unexpected", "KeyError: 'lost'"),
        (stop, "unexpected", "SystemExit"),
        (crash, "crash", "SIGABRT"),
        (hang, "hang", "more than 1 seconds"),
        (hoard, "unexpected", "MemoryError"),
    ],
)
def test_the_guard_sees_it_and_goes_on(monkeypatch, use, kind, text):
    monkeypatch.setattr(guarded, "SECONDS", 1)
    monkeypatch.setattr(guarded, "MEGABYTES", 512)
    for verdict in verdict_of(use):
        assert verdict.kind == kind
        assert text in verdict.text
        assert verdict.passes == (kind in ("accepted", "refused"))
