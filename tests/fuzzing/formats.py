"""From trees to the bytes of a file. What a format cannot hold is written as nearly as it can be.

Each takes what draws its spelling, the tree, and whether the file shall be sound, so that nothing in it may lie.
"""

import csv
import io
import json
import pickle
import zipfile
import zlib

import numpy as np
import yaml
from hypothesis import strategies as st

from fuzzing.mutations import damaged


def json_of(draw, tree, sound=False):
    """Write JSON; what is not plain is written as text."""
    text = json.dumps(tree, default=str, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from((None, 1))))
    return text.encode("utf-8", "surrogatepass")


def yaml_of(draw, tree, sound=False):
    """Write YAML, in one of its spellings."""
    if draw(st.booleans()):
        return json_of(draw, tree)
    return yaml.safe_dump(tree, sort_keys=False, width=10_000).encode("utf-8", "surrogatepass")


def text_of(draw, tree, sound=False):
    """Write text as it is."""
    return (tree if isinstance(tree, str) else json.dumps(tree, default=str)).encode("utf-8", "surrogatepass")


def bytes_of(draw, tree, sound=False):
    """Write bytes as they are."""
    return tree if isinstance(tree, bytes) else text_of(draw, tree)


def jsonl_of(draw, tree, sound=False):
    """Write an object a line."""
    rows = tree if isinstance(tree, list) else [tree]
    return b"\n".join(json.dumps(row, default=str).encode("utf-8", "surrogatepass") for row in rows)


def csv_of(draw, tree, sound=False):
    """Write the names of the first row, and the values of every row."""
    rows = tree if isinstance(tree, list) else [tree]
    lines = [list(rows[0])] if rows and isinstance(rows[0], dict) else []
    lines += [list(row.values()) if isinstance(row, dict) else [row] for row in rows]
    text = io.StringIO()
    csv.writer(text, delimiter=",;\t"[0 if sound else draw(st.integers(0, 2))]).writerows(
        [value if isinstance(value, str) else json.dumps(value, default=str) for value in line] for line in lines
    )
    return text.getvalue().encode("utf-8", "surrogatepass")


def pickle_of(draw, tree, sound=False):
    """Write a pickle of any protocol."""
    return pickle.dumps(tree, draw(st.integers(0, 5)))


SHAPES = (
    "(2**40,)",
    "(2, 2**40)",
    "(-1,)",
    "(0, 10**18)",
    "(1,) * 40",
    "(2**63,)",
    "(3,)",
    "()",
    "[2]",
    "None",
    "(2.0,)",
)
TYPES = (
    "<f8",
    "<U100000000",
    "|O",
    "<M8[s]",
    "|V1000000000",
    ">i4",
    "x",
    "",
    "|S0",
    [("a", "<f8")],
    [("a", "<f8", 9)] * 2,
)


def npz_of(draw, tree, sound=False):
    """Write an `.npz`: mostly sound archives of unsound arrays, whose headers may lie."""
    if not isinstance(tree, dict):
        tree = {"x": tree}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))) as archive:
        liar = -1 if sound or not tree else draw(st.integers(-2 * len(tree), len(tree) - 1))
        for number, (name, value) in enumerate(tree.items()):
            member = _npy(value)
            if number == liar:
                member = _worse(draw, member)
            archive.writestr(str(name).replace("\0", "_").encode("utf-8", "replace").decode() + ".npy", member)
    return file.getvalue()


def _npy(value):
    """Return an array as the bytes of an `.npy` file; mappings are JSON, as in parity files."""
    file = io.BytesIO()
    if isinstance(value, dict):
        value = json.dumps(value, default=str)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.asarray(str(value))
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _worse(draw, member):
    """Draw an `.npy` file that is damaged, or declares another shape or type than it holds."""
    if draw(st.booleans()):
        return damaged(draw, member)
    shape, kind = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(TYPES))
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {eval(shape)!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + member[128:]


def safetensors_of(draw, tree, sound=False):
    """Write a `.safetensors` file from `{"header": ..., "data": bytes}`; a `model` in its metadata is JSON in JSON."""
    if not isinstance(tree, dict) or not isinstance(header := tree.get("header"), dict):
        return json_of(draw, tree)
    told = header.get("__metadata__")
    if isinstance(told, dict):
        as_text = {
            key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in told.items()
        }
        header = {**header, "__metadata__": as_text}
    text = json.dumps(header, default=str).encode("utf-8", "surrogatepass")
    data = tree.get("data", b"")
    return len(text).to_bytes(8, "little") + text + (data if isinstance(data, bytes) else b"")


def safetensors_tree(content):
    """Return the tree of a sound `.safetensors` file."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if "model" in header.get("__metadata__", {}):
        header["__metadata__"]["model"] = json.loads(header["__metadata__"]["model"])
    return {"header": header, "data": content[8 + size :]}


def crc(content):
    """Return a checksum by which a case is named."""
    return f"{zlib.crc32(content):08x}"
