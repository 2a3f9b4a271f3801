"""Parts whose signature, name or file is wrong are refused before anything of them runs."""

import re

import pytest
from test_broken_contracts import Sound
from torch import Tensor

from mer_zoo import registry
from mer_zoo.checking import check_part
from mer_zoo.errors import MerZooError


class UntypedSetting(Sound):
    def __init__(self, width: int, *, heads=2) -> None:
        super().__init__(width)


class UnknownFact(Sound):
    def __init__(self, width: int, emotions: int) -> None:
        super().__init__(width)


class HiddenSettings(Sound):
    def __init__(self, width: int, **settings: int) -> None:
        super().__init__(width)


class CalledName(Sound):
    def __init__(self, width: int, *, name: str = "x") -> None:
        super().__init__(width)


class TensorSetting(Sound):
    def __init__(self, width: int, *, start: Tensor | None = None) -> None:
        super().__init__(width)


class WrongDefault(Sound):
    def __init__(self, width: int, *, heads: int = "two") -> None:  # type: ignore[assignment]
        super().__init__(width)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (UntypedSetting, "setting 'heads' has no type. Annotate it, as in `heads: int = 1`."),
        (
            UnknownFact,
            "positional argument 'emotions' is not a fact that an encoder can be given",
        ),
        (HiddenSettings, "`*settings` hides settings. Name each one."),
        (CalledName, "a setting cannot be called 'name'"),
        (TensorSetting, "a setting's type is not plain data"),
        (WrongDefault, "setting 'heads' of encoder/wrong_default: must be a valid integer (given: \"two\")."),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_broken_signatures(cls, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("encoder", cls)


def test_a_registered_part_with_an_untyped_setting():
    with pytest.raises(MerZooError, match="'heads' has no type"):
        registry.register("encoder", UntypedSetting)


def test_import_error(tmp_path):
    (tmp_path / "mine.py").write_text("import does_not_exist\n")
    with pytest.raises(MerZooError, match=r"no module named 'does_not_exist'\. Is it installed"):
        check_part("encoder", f"{tmp_path}/mine.py:Mine")
    (tmp_path / "typo.py").write_text("class Mine(:\n")
    with pytest.raises(MerZooError, match=r"importing .*typo\.py' fails: SyntaxError"):
        check_part("encoder", f"{tmp_path}/typo.py:Mine")
    (tmp_path / "other.py").write_text("class Min:\n    pass\n")
    with pytest.raises(MerZooError, match=r"has no 'Mine'\. Did you mean 'Min'"):
        check_part("encoder", f"{tmp_path}/other.py:Mine")


def test_duplicate_name():
    with pytest.raises(MerZooError, match=re.escape("'linear' exists already (mer_zoo.parts.encoder.linear:Linear)")):
        registry.register("encoder", Sound, "linear")
