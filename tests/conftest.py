"""Fixtures every test file may use."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST = ("test_site.py", "test_contracts.py", "test_killing.py", "test_parity.py", "test_ray.py", "test_wheel.py")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest: one that begins last would leave the other workers idle."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_addoption(parser):
    parser.addoption("--gpu", help="the GPU for tests that have one: cuda if torch sees one; cpu stands in for it")


def pytest_generate_tests(metafunc):
    """Run what names `gpu` on the GPU, and what names `computed_on` there, too."""
    wanted = {"gpu", "computed_on"} & set(metafunc.fixturenames)
    if not wanted:
        return
    import torch

    there = metafunc.config.getoption("gpu") or ("cuda" if torch.cuda.is_available() else None)
    marks = [pytest.mark.gpu, *([] if there else [pytest.mark.skip("no GPU here")])]
    on_gpu = pytest.param(there, marks=marks, id="gpu")
    for name in wanted:
        metafunc.parametrize(name, ["cpu", *([on_gpu] if there else [])] if name == "computed_on" else [on_gpu])


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


@pytest.fixture(scope="session")
def small():
    """Return a small synthetic dataset: enough to learn something in a second."""
    from mer_zoo.data.synthetic import synthetic

    easy = {"speakers": 2, "hold": 0.3, "signal": 1.6, "inertia": 0.7, "contagion": 0.2, "distractor": 0.5}
    return synthetic(dialogues=(24, 6, 8), utterances=(5, 12), persistence=0.9, **easy)  # the default takes longer


@pytest.fixture(scope="session")
def small_folder(small, tmp_path_factory):
    """Return the same, as a folder on disk."""
    from mer_zoo.data.container import write_dataset

    return write_dataset(small, tmp_path_factory.mktemp("data") / "small")
