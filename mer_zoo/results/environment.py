"""Where a run was made."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Environment(BaseModel):
    """Versions and machine of a run.

    Example:
        >>> Environment.here("cpu").device
        'cpu'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    python: str
    torch: str
    dgl: str
    numpy: str
    mer_zoo: str
    device: str
    platform: str
    cpu_count: int
    git_commit: str | None = None

    @classmethod
    def here(cls, device: str) -> Environment:
        """Describe this process; `device` is what the run calls its device, such as "cpu" or "cuda: NVIDIA H100"."""
        return cls(
            python=platform.python_version(),
            torch=_version("torch"),
            dgl=_version("dgl"),
            numpy=_version("numpy"),
            mer_zoo=_version("mer-zoo"),
            device=device,
            platform=f"{platform.system()} {platform.machine()}",
            cpu_count=os.cpu_count() or 1,
            git_commit=_git_commit(),
        )


def _version(package: str) -> str:
    if package == "mer-zoo":
        import mer_zoo

        return mer_zoo.__version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


@cache
def _git_commit() -> str | None:
    """Commit of the checkout mer_zoo is imported from, "-dirty" appended if it was changed; None if installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
