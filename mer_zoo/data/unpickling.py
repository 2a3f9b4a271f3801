"""Reading pickles of plain data without running what they ask for, or spending more memory than their size explains.

A pickle is a program: it may import and call anything. `load_plain` knows a dozen harmless names, answers every other
one with an error, and builds numpy arrays itself from checked types and raw bytes. Before it begins, the instructions
are walked through: none may declare more than the file holds.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from mer_zoo.data.archive import check_letters
from mer_zoo.errors import MerZooError

COPIES = 4  # bytes that calls may make of one byte of the file: text to bytes to array is two
SPARE = 1 << 20  # and what a small file may take anyway
ENTRY = 64  # bytes that an entry of a set or dict takes
CONTAINERS = 2_000_000  # lists, dicts and sets; an empty one takes one byte in the file and up to 216 in memory


def load_plain(path: str | os.PathLike[str]) -> Any:
    """Unpickle a file of plain containers, strings, numbers and numpy arrays, and refuse any other.

    Args:
        path: a pickle of any protocol.

    Returns:
        The object; strings of Python 2 are decoded as latin1. Nothing that the pickle names is imported or called.

    Raises:
        MerZooError: the pickle names anything else, wants more memory than its size explains, or is damaged.

    Example:
        >>> import pickle, tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     _ = Path(home, "evil.pkl").write_bytes(pickle.dumps(eval))
        ...     load_plain(f"{home}/evil.pkl")
        Traceback (most recent call last):
        ...
        mer_zoo.errors.MerZooError: .../evil.pkl: asks to import 'builtins.eval', which feature data has no need of. ...
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as code:
                _walk(code)
                allowance = COPIES * len(code) + SPARE
            return _Unpickler(stream, allowance).load()
    except FileNotFoundError:
        raise MerZooError(f"{file}: no such file. Check the path.") from None
    except OSError as error:
        raise MerZooError(f"{file}: cannot be read: {error.strerror or error}.") from None
    except _Forbidden as error:
        raise MerZooError(
            f"{file}: asks to import '{error}', which feature data has no need of. Nothing was run. "
            "Only plain containers, strings, numbers and numpy arrays are read; do not open this file with pickle."
        ) from None
    except Exception as error:  # damaged bytes can make the unpickler raise nearly anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MerZooError(f"{file}: is not a pickle of plain data ({reason}). It is truncated or damaged.") from None


class _Forbidden(Exception):
    pass


def _walk(code: mmap.mmap) -> None:
    """Check every instruction's declared sizes against the file's, and count what the smallest make."""
    at = containers = 0
    while at < len(code):
        opcode = code[at]
        if opcode in _STEPS:
            at += _STEPS[opcode]
        elif opcode in _EMPTY:
            at, containers = at + 1, containers + 1
            if containers > CONTAINERS:
                raise pickle.UnpicklingError(f"makes more than {CONTAINERS:,} lists, dicts and sets")
        elif opcode in _LINES:
            start = at + 1
            for _ in range(_LINES[opcode]):
                at = code.find(b"\n", at + 1)
                if at < 0:
                    return  # truncated, as the unpickler will say
            at += 1
            if opcode == _PUT:
                _check_memo(int(code[start : at - 1]), at)
        elif opcode in _SIZED:
            start = at + 1 + _SIZED[opcode]
            size = int.from_bytes(code[at + 1 : start], "little")
            if opcode == _LONG_BINPUT:
                _check_memo(size, start)
                size = 0
            elif size > len(code) - start:
                raise pickle.UnpicklingError(f"declares {size:,} bytes where {max(len(code) - start, 0):,} are left")
            at = start if opcode == _FRAME else start + size  # what is inside a frame is walked through too
        else:  # the end, or no instruction
            return


def _check_memo(number: int, at: int) -> None:
    """Refuse a place in the unpickler's table beyond what the instructions so far can have filled."""
    if number > at:
        raise pickle.UnpicklingError(f"numbers a value {number:,} where there are fewer")


_EMPTY, _PUT, _LONG_BINPUT, _FRAME = b"]})\x8f", ord("p"), ord("r"), 0x95
_STEPS: dict[int, int] = {}  # instructions of fixed length
_LINES: dict[int, int] = {}  # instructions with lines of text: how many
_SIZED: dict[int, int] = {_LONG_BINPUT: 4, _FRAME: 8}  # bytes that hold a size
for _op in pickletools.opcodes:
    _name, _n = (_op.arg.name, _op.arg.n) if _op.arg else ("", 0)
    if ord(_op.code) in {*_EMPTY, *_SIZED, ord(pickle.STOP)}:
        continue
    if _n >= 0:
        _STEPS[ord(_op.code)] = 1 + _n
    elif _n == pickletools.UP_TO_NEWLINE:
        _LINES[ord(_op.code)] = 2 if "pair" in _name else 1
    else:
        _SIZED[ord(_op.code)] = int(_name[-1])


class _Unpickler(pickle.Unpickler):
    """Hands out stubs that share one allowance of memory."""

    def __init__(self, stream: Any, allowance: int) -> None:
        super().__init__(stream, encoding="latin1")
        left = [allowance]
        self._stubs = {key: _Sealed(stub.__name__, (stub,), {"left": left}) for key, stub in _ALLOWED.items()}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._stubs[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None


class _Sealed(type):
    """A pickle may set attributes of whatever it names; those of our stubs stay as they are."""

    left: list[int]

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"sets '{name}' of {cls.__name__}")

    def spend(cls, size: int) -> None:
        cls.left[0] -= size
        if cls.left[0] < 0:
            raise pickle.UnpicklingError("asks for more memory than its size explains")


class _Dtype(metaclass=_Sealed):
    """Stands in for `numpy.dtype`: simple numbers, strings and objects; no records, no sub-arrays, no metadata."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        self.dtype = self._plain(np.dtype(str(code)))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *nested = state[:5]
        if any(part is not None for part in nested):
            raise pickle.UnpicklingError("holds an array of records")
        if order in ("<", ">"):
            self.dtype = self._plain(self.dtype.newbyteorder(order))

    @staticmethod
    def _plain(dtype: np.dtype) -> np.dtype:
        if dtype.kind not in "biufSUO" or dtype.fields or dtype.subdtype:
            raise pickle.UnpicklingError(f"holds an array of type {dtype}")
        return dtype


class _Array(np.ndarray, metaclass=_Sealed):
    """Stands in for `numpy.ndarray`; numpy fills it only after its state was found sound. `np.asarray` undresses it."""

    def __new__(cls) -> _Array:
        return super().__new__(cls, (0,), np.dtype("b"))

    def __setstate__(self, state: Any) -> None:
        _, sizes, dtype, fortran, raw = state
        shape = tuple(int(size) for size in sizes)
        count = _count(shape)
        if dtype.dtype.kind == "O":
            sound = type(raw) is list and len(raw) == count
        else:
            raw = _bytes(raw, type(self))
            sound = len(raw) == count * dtype.dtype.itemsize
        if not sound:
            raise pickle.UnpicklingError(f"holds an array whose data does not fill its shape {shape}")
        type(self).spend(count * dtype.dtype.itemsize)
        super().__setstate__((1, shape, dtype.dtype, bool(fortran), raw))  # type: ignore[arg-type]
        check_letters(np.asarray(self))


class _Reconstruct(metaclass=_Sealed):
    """Stands in for numpy's `_reconstruct`: an empty array, whose state follows."""

    def __new__(cls, subtype: Any, shape: object, code: object) -> Any:
        if not issubclass(subtype, _Array):
            raise pickle.UnpicklingError("holds an array that is none")
        return subtype()


class _FromBuffer(metaclass=_Sealed):
    """Stands in for numpy's `_frombuffer`: how protocol 5 stores arrays."""

    def __new__(cls, raw: Any, dtype: _Dtype, shape: Any, order: str, axes: Any = None) -> Any:
        if dtype.dtype.kind == "O":
            raise pickle.UnpicklingError("holds raw bytes for an array of objects")
        flat = np.frombuffer(_bytes(raw, cls), dtype.dtype)
        check_letters(flat)
        return flat.reshape(shape, order="F" if order == "F" else "C")


class _Scalar(metaclass=_Sealed):
    """Stands in for numpy's `scalar`: one number or string."""

    def __new__(cls, dtype: _Dtype, raw: Any) -> Any:
        if dtype.dtype.kind == "O":
            raise pickle.UnpicklingError("holds an object scalar")
        cls.spend(dtype.dtype.itemsize)
        one = np.frombuffer(_bytes(raw, cls), dtype.dtype, count=1)
        check_letters(one)
        return one[0]


class _Encode(metaclass=_Sealed):
    """Stands in for `_codecs.encode` and `bytes`, by which old protocols spell bytes."""

    def __new__(cls, text: object = b"", encoding: str = "latin1") -> Any:
        return _bytes(text, cls)


class _ByteArray(metaclass=_Sealed):
    """Stands in for `bytearray`, of bytes alone: a number would be a size."""

    def __new__(cls, text: object = b"", encoding: str = "latin1") -> Any:
        made = _bytes(text, cls)
        cls.spend(len(made))
        return bytearray(made)


class _Container(metaclass=_Sealed):
    """Stands in for a container that is made of what another holds."""

    kind: Any

    def __new__(cls, members: Any = ()) -> Any:
        cls.spend(ENTRY * len(members))
        return cls.kind(members)


class _Set(_Container):
    kind = set


class _FrozenSet(_Container):
    kind = frozenset


class _OrderedDict(_Container):
    kind = OrderedDict


def _bytes(raw: object, stub: Any) -> bytes:
    """Return bytes, counted as the stub's when they are a copy."""
    if type(raw) is bytes:
        return raw
    if isinstance(raw, str | bytearray):
        stub.spend(len(raw))
        return raw.encode("latin1") if isinstance(raw, str) else bytes(raw)  # Python 2 wrote bytes as strings
    raise pickle.UnpicklingError(f"holds a {type(raw).__name__} where bytes belong")


def _count(shape: tuple[int, ...]) -> int:
    if any(size < 0 for size in shape):
        raise pickle.UnpicklingError(f"holds an array of shape {shape}")
    return math.prod(shape)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
    ("collections", "OrderedDict"): _OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Reconstruct
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _Scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _FromBuffer
for _builtins in ("builtins", "__builtin__"):
    _ALLOWED[_builtins, "bytes"] = _Encode
    _ALLOWED[_builtins, "bytearray"] = _ByteArray
    _ALLOWED[_builtins, "set"] = _Set
    _ALLOWED[_builtins, "frozenset"] = _FrozenSet
