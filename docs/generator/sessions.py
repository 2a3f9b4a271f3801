"""Runs the examples of the tutorials and keeps what they print: `docs/examples/NAME/session.sh` → a transcript.

A session is a list of commands, one a line, run one after the other in a fresh folder that holds the example's other
files. A command after `# fails` must fail; every other one must not.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.generator.pages import ROOT, Pages

EXAMPLES = ROOT / "docs" / "examples"
WIDTH = 88


def names() -> list[str]:
    """Return the sessions there are."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/session.sh"))


def pages(kept: Path) -> Pages:
    """Return the transcript of every session; one whose files and library are unchanged is taken from `kept`."""
    made: Pages = {}
    for name in names():
        key = key_of(name)
        for number, text in enumerate(_kept(kept, name, key) or run(name), 1):
            made[f"made/session-{name}-{number}.txt"] = text
        made[f"made/session-{name}.key"] = key
    return made


def _kept(kept: Path, name: str, key: str) -> list[str]:
    mark = kept / f"made/session-{name}.key"
    if not mark.is_file() or mark.read_text() != key:
        return []
    files = sorted(kept.glob(f"made/session-{name}-*.txt"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))
    return [path.read_text(encoding="utf-8") for path in files]


def key_of(name: str) -> str:
    """Return the hash of all that decides what an example prints."""
    files = [*(EXAMPLES / name).rglob("*"), *(ROOT / "mer_zoo").rglob("*.py")]
    files += [path for folder in ("registry", "baselines") for path in (ROOT / folder).rglob("*.yaml")]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def run(name: str) -> list[str]:
    """Run a session in a fresh folder; return a transcript per part (parts are set apart by empty lines).

    Raises:
        RuntimeError: a command did not end as it should.
    """
    with tempfile.TemporaryDirectory() as home:
        folder, programs = Path(home, name), Path(home, "programs")
        shutil.copytree(EXAMPLES / name, folder)
        programs.mkdir()
        for program, command in {"mer-zoo": f"{sys.executable} -m mer_zoo.cli", "python": sys.executable}.items():
            (programs / program).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (programs / program).chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": str(WIDTH),
            "TERM": "dumb",
        }
        script = (EXAMPLES / name / "session.sh").read_text(encoding="utf-8")
        return [_part(part, folder, environment, name) for part in re.split(r"\n{2,}", script.strip())]


def _part(part: str, folder: Path, environment: dict[str, str], name: str) -> str:
    printed, fails = [], False
    for command in part.replace("\\\n", "\\\0").splitlines():
        if command.startswith("#"):
            fails = command == "# fails"
            continue
        command = command.replace("\0", "\n")
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
        )
        if (done.returncode != 0) != fails:
            raise RuntimeError(f"{name}: `{command}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        output = done.stdout + (done.stderr if fails else "")
        printed += [f"$ {command}", *_as_in_a_terminal(output.replace(str(folder), ".").replace(f"{ROOT}/", ""))]
        fails = False
    return "\n".join(printed).rstrip() + "\n"


def _as_in_a_terminal(output: str) -> list[str]:
    """Lines without blanks at their ends, those too long broken where a terminal breaks them."""
    lines = [line.rstrip() for line in output.splitlines()]
    return [line[i : i + WIDTH] for line in lines for i in range(0, max(len(line), 1), WIDTH)]
