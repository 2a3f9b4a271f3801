"""Windows and macOS, where no test of ours may run: what only Unix has is used behind a question alone."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
CALLS = {
    "os": {
        *("chown", "fork", "forkpty", "getgid", "getpgid", "getppid", "getuid", "killpg", "mkfifo", "nice", "openpty"),
        *(
            "sched_getaffinity",
            "sched_setaffinity",
            "setpgid",
            "setpgrp",
            "setsid",
            "statvfs",
            "uname",
            "wait",
            "waitpid",
        ),
    },
    "signal": {
        "SIGALRM",
        "SIGCHLD",
        "SIGHUP",
        "SIGKILL",
        "SIGPIPE",
        "SIGUSR1",
        "SIGUSR2",
        "alarm",
        "pause",
        "setitimer",
    },
    "time": {"tzset"},
}
FOLDERS = ("/proc", "/sys/", "/dev/", "/tmp", "/etc")
QUESTIONS = ("hasattr(", "os.name", "sys.platform", "platform.system", "find_spec(", ".exists()")
"""What a guard asks: an `if`, or a conditional expression, on the way to the place; or an early `return`."""


def unix_only(text):
    """Return (line, what) of everything that only Unix has and that no question guards."""
    tree = ast.parse(text)
    found = []

    def asks(node):
        return any(question in ast.unparse(node) for question in QUESTIONS)

    def what(node):
        if isinstance(node, ast.Import):
            return next((alias.name for alias in node.names if alias.name.split(".")[0] in MODULES), None)
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            return module if module in MODULES or any(a.name in CALLS.get(module, ()) for a in node.names) else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return f"{node.value.id}.{node.attr}" if node.attr in CALLS.get(node.value.id, ()) else None
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(FOLDERS):
            return node.value
        return None

    def look(node, guarded):
        if not guarded and (name := what(node)) is not None:
            found.append((node.lineno, name))
        if isinstance(node, (ast.If, ast.IfExp)) and asks(node.test):
            guarded = True
        returned = guarded
        for child in ast.iter_child_nodes(node):
            look(child, returned)
            if isinstance(child, ast.If) and asks(child.test) and isinstance(child.body[-1], (ast.Return, ast.Raise)):
                returned = True  # what follows is not reached elsewhere

    look(tree, False)
    return found


@pytest.mark.attack("D1")
def test_nothing_only_unix_has_is_used_unasked():
    found = {}
    for file in sorted((ROOT / "mer_zoo").rglob("*.py")):
        if places := unix_only(file.read_text(encoding="utf-8")):
            found[file.relative_to(ROOT).as_posix()] = places
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "import resource",
        "def late():\n    from fcntl import flock",
        "import os\nos.fork()",
        "import signal\nsignal.signal(signal.SIGKILL, None)",
        "from os import getppid",
        "open('/proc/self/status')",
        "import os\nif True:\n    os.getppid()",
    ],
)
def test_what_only_unix_has_is_seen(text):
    assert len(unix_only(text)) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "import os\nif hasattr(os, 'fork'):\n    os.fork()",
        "import os\ncount = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else 1",
        "import sys\ndef peak():\n    if sys.platform == 'win32':\n        return None\n    import resource",
    ],
)
def test_a_question_is_a_guard(text):
    assert unix_only(text) == []


def test_text_files_are_read_and_written_as_utf8():
    """Without an encoding, Windows takes that of the country."""
    found = []
    for file in sorted((ROOT / "mer_zoo").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            binary = any(isinstance(word, str) and "b" in word for word in words)
            given = any(keyword.arg == "encoding" for keyword in node.keywords)
            if name in ("read_text", "write_text") and not given:
                found.append(f"{file.name}:{node.lineno}")
            if name == "open" and isinstance(node.func, ast.Name) and not given and not binary:
                found.append(f"{file.name}:{node.lineno}")
    assert found == []


def test_every_shipped_file_has_a_name_that_any_disk_takes():
    reserved = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
    for top in ("mer_zoo", "registry", "baselines", "tests", "docs"):
        names = [
            path.relative_to(ROOT).as_posix() for path in (ROOT / top).rglob("*") if "__pycache__" not in path.parts
        ]
        assert len({name.lower() for name in names}) == len(names)
        for name in names:
            assert not set(name) & set('<>:"\\|?*'), name
            assert not {part.split(".")[0].lower() for part in name.split("/")} & reserved, name


def test_the_workflow_runs_on_three_systems_and_every_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["system"]} == {"ubuntu", "windows", "macos"}
    assert matrix["python"] == ["3.10", "3.11", "3.12"]
    assert any("pytest" in step.get("run", "") for step in workflow["jobs"]["tests"]["steps"])
