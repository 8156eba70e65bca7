"""Bad input made from good: bytes changed blindly, and files wrong in one thing alone."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]
Named = tuple[str, bytes]
"""What was done, and the content that it made."""

MARK = "executed"
"""Folder that a payload makes in the working directory when something runs it."""
EXTREMES = (0, 1, -1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63))
NONSENSE: tuple[Any, ...] = (
    None,
    True,
    "",
    "abc",
    "nan",
    "1e3",
    "../../etc/passwd",
    "x" * 5000,
    "\x1b[2J\u202e\ud800",
    0,
    -1,
    1,
    10**30,
    0.5,
    -0.0,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    [],
    [[]],
    [None] * 200,
    {},
    {"": {}},
    {"a": [1, {"b": None}]},
)
NUMBERS = ("nan", "-1", "1e999", "null", "0", "7", "9" * 20)
TOKENS = (*NUMBERS, "[", "{", "}", '"', ":", "\n", "\x00", "!!int x", "&a", "*a", "<<: ")


class Payload:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (MARK,)


def mutate_bytes(rng: random.Random, content: bytes) -> Named:
    """Change bytes without regard to what they mean, one to four times."""
    names: list[str] = []
    for _ in range(rng.randint(1, 4)):
        name, change = rng.choice(BYTE_CHANGES)
        names.append(name)
        content = change(rng, content)
    return " + ".join(names), content


def _span(rng: random.Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 4, 16, 200)))


def _flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(min(len(changed), rng.choice((1, 1, 8)))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _delete(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + content[end:]


def _double(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:end] + content[start:end] * rng.choice((1, 1, 30)) + content[end:]


def _blank(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + rng.choice((b"\0", b"\xff", b" ")) * (end - start) + content[end:]


def _scramble(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _number(rng: random.Random, content: bytes) -> bytes:
    """Overwrite some bytes with an extreme whole number, as sizes and offsets are written."""
    size = rng.choice("HIQ")
    width = struct.calcsize(size)
    if len(content) < width:
        return content
    start = rng.randrange(len(content) - width + 1)
    value = rng.choice(EXTREMES) % 2 ** (8 * width)
    return content[:start] + struct.pack(f"<{size}", value) + content[start + width :]


def _insert(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.choice(TOKENS).encode() + content[start:]


def _digits(rng: random.Random, content: bytes) -> bytes:
    """Replace a digit, as they stand in headers and in text, by another value."""
    places = [index for index, byte in enumerate(content[:5000]) if 48 <= byte <= 57]
    if not places:
        return content
    place = rng.choice(places)
    return content[:place] + rng.choice(NUMBERS).encode() + content[place + 1 :]


BYTE_CHANGES: tuple[tuple[str, Callable[[random.Random, bytes], bytes]], ...] = (
    ("flip", _flip),
    ("cut", _cut),
    ("delete", _delete),
    ("double", _double),
    ("blank", _blank),
    ("scramble", _scramble),
    ("number", _number),
    ("insert", _insert),
    ("digits", _digits),
)


def mutate_tree(rng: random.Random, tree: Any) -> tuple[str, Any]:
    """Return a copy of JSON-able content with one entry replaced, removed, renamed or added."""
    copy = json.loads(json.dumps(tree))
    places: list[tuple[Any, Any]] = []
    pending = [copy]
    while pending:
        node = pending.pop()
        items = list(node.items() if isinstance(node, dict) else enumerate(node))
        places += [(node, key) for key, _ in items]
        pending += [value for _, value in items if isinstance(value, dict | list) and value]
    if not places or rng.random() < 0.03:
        value = rng.choice(NONSENSE)
        return f"whole = {value!r:.40}", value
    node, key = rng.choice(places)
    action = rng.choice(("replace", "replace", "replace", "remove", "add", "rename", "nest"))
    value = rng.choice(NONSENSE)
    if action == "replace":
        node[key] = value
    elif action == "remove":
        del node[key]
    elif action == "nest":
        node[key] = [node[key]]
    elif isinstance(node, list):
        node.insert(rng.randrange(len(node) + 1), value)
    else:
        name = rng.choice(("extra", "", "\x1b[31m", "__class__", "x" * 300))
        node[name] = value if action == "add" else node.pop(key)
    return f"{action} {key!r:.40} ({value!r:.40})", copy


def json_bytes(rng: random.Random, tree: Any) -> bytes:
    """Write JSON as a careless program would: NaN, doubled keys, lone surrogates and deep nesting too."""
    text = json.dumps(tree)
    trick = rng.random()
    if trick < 0.05 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + "," + text[1:]
    elif trick < 0.08:
        text = "[" * 50_000 + text + "]" * 50_000
    elif trick < 0.11:
        text = text.replace(": 1", ": 1" + "0" * 5000, 1)
    return text.encode("utf-8", "surrogatepass")


def pack(members: list[Named], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive of members in their order, whatever their names."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    """Return an array as NumPy stores it, an array of objects as a pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=True)
    return buffer.getvalue()


def with_header(shape: str, descr: str, data: bytes = b"", order: str = "False") -> bytes:
    """Return a member whose header says whatever it likes."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + data


def members_of(arrays: Arrays) -> list[Named]:
    """Return arrays as members of an archive."""
    return [(f"{key}.npy", npy(array)) for key, array in arrays.items()]


def fresh_path(name: str) -> Path:
    """Return where to write a file; no link of an earlier case is left there."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    return path
