"""Lines of Python run with little memory, each in a process of its own: forked from one that has loaded the library.

The memory of what is loaded does not count, so all that a line needs stands in `loaded`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from mer_zoo.errors import MerZooError

MEGABYTES = 600  # of memory that a line may take beyond what the library itself takes
SECONDS = 60


class Process:
    """A process that has run `loaded` and forks for each line."""

    def __init__(self, loaded):
        self.folder = tempfile.TemporaryDirectory()
        command = [sys.executable, __file__, loaded]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.process.communicate()
        self.folder.cleanup()

    def run(self, code, path):
        """Run a line with `path` as `sys.argv[1]`; return how it ended, and what it said: output, errors."""
        said = [Path(self.folder.name) / name for name in ("out", "error")]
        print(json.dumps([code, *map(str, (path, *said))]), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline()), *(file.read_text() for file in said)

    def refusal(self, code, path):
        """Run a line; return the one message of a `MerZooError` it ends in."""
        ended, out, error = self.run(code, path)
        assert (ended, error) == (0, "")
        assert "MemoryError" not in out
        return out


def fork(known, code, path, out, error):
    """Run a line in a fork; return how it ended."""
    import resource

    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended = 1
    try:
        sys.argv, sys.stdout, sys.stderr = ["-c", path], open(out, "w"), open(error, "w")  # noqa: SIM115 (it ends)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (MEGABYTES << 20),) * 2)
        signal.alarm(SECONDS)
        exec(code, known)
        ended = 0
    except MerZooError as refused:
        print(refused)
        ended = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended)


def main():
    """Serve."""
    known = {"sys": sys}
    exec(sys.argv[1], known)
    for line in sys.stdin:
        print(fork(known, *json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
