"""Fixtures every test file may use."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data():
    """Return a function: file name below `shared/data` -> its path; skips the test where it is absent."""

    def find(name: str) -> Path:
        for folder in REPOSITORY.parents:
            path = folder / "shared" / "data" / name
            if path.exists():
                return path
        pytest.skip(f"real data file {name} is not on this machine")

    return find
