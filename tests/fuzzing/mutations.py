"""How valid data becomes invalid: trees of plain data and arrays, and bytes."""

import copy
import math

import numpy as np
from hypothesis import strategies as st


def nested(depth, kind):
    """Return lists or mappings inside one another."""
    value = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


NUMBERS = (0, 1, -1, 2, 3, 7, 0.5, -0.0, 1e-320, 1e38, 1e308, math.inf, -math.inf, math.nan)
NUMBERS += tuple(sign * 2**power + off for power in (15, 31, 32, 53, 63, 64) for off in (-1, 0, 1) for sign in (1, -1))
NUMBERS += (1000, 10_000, 100_000, 10**6, 10**9, 10**12, 10**18, 10**30, 10**400)
TEXTS = ("", " ", "a", "\0", "\x1b[31m", "\x9b", "\ud800", "é→字", "\u202e", "x" * 5000, "../../x", "/", ".", "C:\\x")
TEXTS += (
    "a.b",
    "a/b",
    "a:b",
    "__class__",
    "[/red]",
    "{}",
    "%s",
    "=cmd|' /C calc'!A0",
    "<script>",
    "true",
    "null",
    "1e5",
)
TEXTS += (
    "1",
    "-1",
    "nan",
    "none",
    "all",
    "text",
    "audio",
    "test",
    "train",
    "text<audio",
    "*",
    "[",
    "(a+)+$",
    "\n",
    "\t",
)
ODD = (None, True, False, *NUMBERS, *TEXTS, [], {}, [[]], [None], {"": 1}, {"name": "x"}, list(range(300)), ["a"] * 300)
ODD += tuple(nested(depth, kind) for depth in (30, 49, 60, 150) for kind in ("list", "dict"))


def one_of(draw, values):
    """Draw one of some values, which may be too large to be shown."""
    return values[draw(st.integers(0, len(values) - 1))]


def mutated(draw, trees, vocabulary):
    """Draw one of some trees, changed in a few places.

    Args:
        trees: plain data, arrays among it, to begin with.
        vocabulary: trees whose values may be put in the place of others.
    """
    box = [copy.deepcopy(one_of(draw, trees))]
    for _ in range(draw(st.sampled_from((1, 1, 2, 4)))):
        holder, key = _place(draw, box)
        holder[key] = _changed(draw, holder[key], vocabulary)
    return box[0]


def _place(draw, box):
    """Draw a place in a tree: what holds a value, and under which key."""
    holder, key = box, 0
    while True:
        value = holder[key]
        if isinstance(value, tuple):  # so that what is inside can be replaced
            value = holder[key] = list(value)
        if not isinstance(value, (dict, list)) or not value or draw(st.integers(0, 3)) == 0:
            return holder, key
        holder, keys = value, list(value) if isinstance(value, dict) else range(len(value))
        key = one_of(draw, keys)


def _changed(draw, value, vocabulary):
    """Draw what stands in the place of a value."""
    changes = [_odd, _borrowed, _wrapped]
    if isinstance(value, np.ndarray):
        changes = [_array] * 4 + [_odd]
    elif isinstance(value, dict) and value:
        changes += [_key] * 5
    elif isinstance(value, list) and value:
        changes += [_items] * 5
    elif isinstance(value, str):
        changes += [_text] * 2
    elif isinstance(value, (int, float)):
        changes += [_number] * 2
    return draw(st.sampled_from(changes))(draw, value, vocabulary)


def _odd(draw, value, vocabulary):
    return copy.deepcopy(one_of(draw, ODD))


def _borrowed(draw, value, vocabulary):
    holder, key = _place(draw, [copy.deepcopy(one_of(draw, vocabulary))])
    return holder[key]


def _wrapped(draw, value, vocabulary):
    return one_of(draw, ([value], {"name": value}, [value, value], {"": value}))


def _key(draw, value, vocabulary):
    """Leave out, add, or rename an entry, or let one stand for another."""
    keys = list(value)
    one, other = one_of(draw, keys), one_of(draw, keys)
    new = one_of(draw, (*TEXTS, other))
    what = draw(st.integers(0, 3))
    if what == 0:
        return {key: inner for key, inner in value.items() if key != one}
    if what == 1:
        return {**value, new: _odd(draw, value, vocabulary)}
    if what == 2:
        return {new if key == one else key: inner for key, inner in value.items()}
    return {**value, one: copy.deepcopy(value[other])}


def _items(draw, value, vocabulary):
    """Leave out, repeat or turn round what is in a list."""
    first, last = sorted(draw(st.integers(0, len(value))) for _ in range(2))
    what = draw(st.integers(0, 3))
    if what == 0:
        return value[:first] + value[last:]
    if what == 1:
        return value[:last] + value[first:]
    if what == 2:
        return value[::-1]
    return value * (draw(st.sampled_from((2, 10, 300))) if len(str(value)) < 1000 else 2)


def _text(draw, value, vocabulary):
    at = draw(st.integers(0, len(value)))
    return value[:at] + one_of(draw, TEXTS) + value[at + draw(st.integers(0, 3)) :]


def _number(draw, value, vocabulary):
    near = float(value) if abs(value) < 2**1000 else 0.0
    return one_of(draw, (-value, value + 1, value - 1, value * 1000, near, str(near), [value]))


DTYPES = ("f2", "f4", "f8", ">f8", "i1", "i4", "i8", "u8", "?", "U3", "S3", "c8", "M8[s]", "O", "V4", "i4,f4")


def _array(draw, value, vocabulary):
    """Return an array of another type or shape, or of other values."""
    what = draw(st.integers(0, 6))
    with np.errstate(all="ignore"):
        try:
            if what == 0:
                return value.astype(draw(st.sampled_from(DTYPES)))
            if what == 1:
                return value[draw(st.sampled_from((None, 0, slice(0), slice(1, None), slice(None, None, -1))))]
            if what == 2:
                return value.reshape(draw(st.sampled_from(((-1,), (1, -1), (-1, 1), value.shape[::-1]))))
            if what == 3:
                times = draw(st.sampled_from((0, 2, 300))) if value.nbytes < 10_000 else 2
                return np.repeat(value, times, draw(st.integers(0, max(value.ndim - 1, 0))))
            if what == 4:
                return value[tuple(slice(draw(st.integers(0, 2)), None) for _ in range(value.ndim))]
            if what == 5:
                return np.zeros(draw(st.sampled_from(((), (0,), (0, 5), (3, 0), (1, 1, 1), (1,) * 32))), value.dtype)
            changed = value.copy()
            changed.reshape(-1)[draw(st.integers(0, max(value.size - 1, 0)))] = one_of(draw, (*NUMBERS, *TEXTS))
            return changed
        except (ValueError, TypeError, OverflowError, IndexError, UnicodeError):
            return value[:0] if value.ndim else value


TOKENS = (
    b"\0",
    b"\xff" * 8,
    b"[",
    b"[" * 200,
    b"{",
    b"}",
    b'"',
    b"'",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/name:os.system ",
)
TOKENS += (
    b"!!binary ",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"- ",
    b"? ",
    b"\t",
    b"\n\n",
)
TOKENS += (
    b"\\ud800",
    b"9" * 5000,
    b"c__builtin__\neval\n",
    b"\x8c\x02os",
    b"\x93",
    b"R",
    b"b",
    b"}",
    b"\x8f",
    b"PK\x05\x06",
)
TOKENS += (
    b"\x94" * 50,
    b"h\xff",
    b"j\xff\xff\xff\x7f",
    b"(",
    b"t",
    b"\x81",
    b"\x92",
    b"#",
    b"%",
    b"---\n",
    b"...\n",
    b": ",
)
WORDS = tuple((2**power - off).to_bytes(8, "little") for power in (0, 7, 8, 16, 31, 32, 33, 62, 63, 64) for off in (1,))
WORDS += tuple(word[::-1] for word in WORDS)


def damaged(draw, content):
    """Draw bytes that differ from some in a few places."""
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, len(content)))
        last = min(first + draw(st.sampled_from((1, 2, 4, 8, 50, 1000))), len(content))
        what = draw(st.integers(0, 7))
        if what == 0:
            middle = bytes([draw(st.integers(0, 255))])
            last = first + 1
        elif what == 1:
            middle = one_of(draw, TOKENS)
            last = first
        elif what == 2:
            middle = b""
        elif what == 3:
            middle = content[first:last] * draw(st.sampled_from((2, 3, 100)))
        elif what == 4:
            middle = one_of(draw, WORDS)
            last = first + 8
        elif what == 5:
            middle, last = b"", len(content)  # cut short
        elif what == 6:
            middle = draw(st.binary(max_size=8))
        else:  # a line twice, such as a key
            start = content.rfind(b"\n", 0, first) + 1
            end = content.find(b"\n", first) + 1 or len(content)
            first, last, middle = start, end, content[start:end] * 2
        content = content[:first] + middle + content[last:]
    return content
