"""NPZ files that are wrong in one thing: an array, a header, a member or the archive."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from faults.mutations import (
    NONSENSE,
    Arrays,
    Named,
    Payload,
    json_bytes,
    members_of,
    mutate_bytes,
    mutate_tree,
    npy,
    pack,
    with_header,
)

DTYPES = (
    *("<f2", ">f4", "<f8", ">c8", "<c16", "|b1", "<i1", ">i2", "<u2", "<i8", ">u8", "<g"),
    *("<U5", "|S3", "<M8[s]"),
)
ZEROS = bytes(2**20)
BOMB_BYTES = 2**31
"""Zeros that a few MiB unpack to."""
SHAPES = (
    *("(2**62,)", "(4294967296, 4294967296)", "(-1, 8)", "(1,)*40", "(9223372036854775807,)", "(0, 9**30)"),
    *("(3.5,)", "'8'", "[8]", "(True,)", "(8,)"),
)
DESCRIPTORS = (
    *("'<f4'", "'|O'", "'<U1000000000'", "'<V16'", "[('a', '<f4')]", "'<f99'", "'nonsense'", "8"),
    *("'<M8[s]'", "'|S0'"),
)
NAMES = (
    *("../out.npy", "/etc/out.npy", "a/b.npy", "a\\b.npy", "..npy", ".npy", "no-suffix", "\u202eabc.npy"),
    *("x" * 300 + ".npy", "new\nline.npy"),
)


def mutate_npz(rng: random.Random, arrays: Arrays) -> Named:
    """Return what was done and the file."""
    name, change = rng.choice(CHANGES)
    detail, content = change(rng, dict(arrays))
    return f"{name}: {detail}", content


def _key(rng: random.Random, arrays: Arrays) -> str:
    return rng.choice(list(arrays))


def _array(rng: random.Random, arrays: Arrays) -> Named:
    key = _key(rng, arrays)
    name, change = rng.choice(ARRAY_CHANGES)
    with np.errstate(all="ignore"):
        try:
            arrays[key] = change(rng, np.asarray(arrays[key]))
        except (TypeError, ValueError, IndexError, OverflowError):
            # Not every change can be made to every array: one of no length instead.
            arrays[key] = np.zeros(0)
    return f"{key} {name}", pack(members_of(arrays))


def _dtype(rng: random.Random, array: Any) -> Any:
    return (
        array.real.astype(rng.choice(DTYPES)) if array.dtype.kind == "c" else array.astype(rng.choice(DTYPES))
    )


def _value(rng: random.Random, array: Any) -> Any:
    changed = array.copy()
    changed.flat[rng.randrange(changed.size)] = rng.choice((np.nan, np.inf, -np.inf, -1, 3e38, 1e300, 2**40))
    return changed


def _scaled(rng: random.Random, array: Any) -> Any:
    return array * rng.choice((0, -1, 1e-38, 1e30, 1e38, np.nan, 65535))


def _as_counts(rng: random.Random, array: Any) -> Any:
    """Counts so large that their squares, or sums of them, leave the type."""
    return np.full(array.shape, 65535, rng.choice(("<u2", ">u2", "<u4", "<i4", "<u8")))


def _shape(rng: random.Random, array: Any) -> Any:
    return rng.choice(
        (
            lambda: array[None],
            lambda: array[..., None],
            lambda: array[:0],
            lambda: array[:-1],
            lambda: array.reshape(-1),
            lambda: np.moveaxis(array, 0, -1),
            lambda: np.concatenate([array, array]),
            lambda: array.flat[0],
            lambda: np.zeros((0,) * 20, array.dtype),
            lambda: array[..., :1],
        )
    )()


def _objects(rng: random.Random, array: Any) -> Any:
    value = rng.choice((Payload(), None, "text", [1, 2]))
    filled = np.empty(rng.choice(((), (1,), array.shape[:1])), object)
    filled[...] = value
    return filled


def _text(rng: random.Random, array: Any) -> Any:
    return np.full(array.shape, rng.choice(("a", "", "1", "nan", "\u00b5")))


ARRAY_CHANGES: tuple[tuple[str, Callable[[random.Random, Any], Any]], ...] = (
    ("of another type", _dtype),
    ("with another value", _value),
    ("scaled", _scaled),
    ("as large counts", _as_counts),
    ("of another shape", _shape),
    ("in Fortran order", lambda _, array: np.asfortranarray(array)),
    ("in reverse", lambda _, array: array[::-1]),
    ("of objects", _objects),
    ("of text", _text),
)


def _member(rng: random.Random, arrays: Arrays) -> Named:
    """Leave out, rename or double a member."""
    members = members_of(arrays)
    index = rng.randrange(len(members))
    name, content = members[index]
    action = rng.choice(("left out", "doubled", "renamed", "added", "upper case"))
    if action == "left out":
        del members[index]
    elif action == "doubled":
        members.append((name, rng.choice((content, npy(np.zeros(3))))))
    elif action == "upper case":
        members[index] = (name.upper(), content)
    else:
        wrong = (rng.choice(NAMES), content)
        members[index : index + (action == "renamed")] = [wrong]
    return f"{name} {action}", pack(members)


def _bytes_of_member(rng: random.Random, arrays: Arrays) -> Named:
    """Change a member's bytes, and pack them with the right checksum."""
    members = members_of(arrays)
    index = rng.randrange(len(members))
    name, content = members[index]
    what, changed = mutate_bytes(rng, content)
    members[index] = (name, changed)
    return f"{name} {what}", pack(members)


def _header(rng: random.Random, arrays: Arrays) -> Named:
    members = members_of(arrays)
    index = rng.randrange(len(members))
    shape, descr = rng.choice(SHAPES), rng.choice(DESCRIPTORS)
    data = rng.choice((b"", bytes(64), rng.randbytes(64)))
    content = with_header(shape, descr, data, rng.choice(("True", "False", "3")))
    members[index] = (members[index][0], content)
    return f"{members[index][0]} {shape} {descr}", pack(members)


def make_bomb(rng: random.Random, arrays: Arrays) -> Named:
    """Make a member that unpacks to far more than its size in the archive; takes seconds."""
    bomb = rng.choice([f"{key}.npy" for key in arrays])
    size = rng.choice((2**24, 2**28)) if rng.random() < 0.9 else BOMB_BYTES
    shape = rng.choice((f"({size // 4},)", f"({size // 256}, 8, 8)", f"({size // 4096}, 1024)"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members_of(arrays):
            with archive.open(name, "w", force_zip64=True) as member:
                if name != bomb:
                    member.write(content)
                    continue
                member.write(with_header(shape, "'<f4'"))
                for _ in range(0, size, len(ZEROS)):
                    member.write(ZEROS)
    return f"{bomb} of {size} zeros as {shape}", buffer.getvalue()


def _claim(rng: random.Random, arrays: Arrays) -> Named:
    """An archive whose directory claims other sizes than its members have."""
    content = bytearray(pack(members_of(arrays), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    at = content.find(b"PK\x01\x02", rng.randrange(len(content)))
    at = at if at >= 0 else content.find(b"PK\x01\x02")
    field = rng.choice((8, 10, 16, 20, 24, 28, 30, 42))
    value = rng.choice((0, 1, 2**16 - 1, 2**31, 2**32 - 1)).to_bytes(4, "little")
    content[at + field : at + field + 4] = value
    return f"field {field} at {at}", bytes(content)


def _method(rng: random.Random, arrays: Arrays) -> Named:
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    return str(method), pack(members_of(arrays), method)


def _metadata(rng: random.Random, arrays: Arrays) -> Named:
    """Change the provenance, or replace it."""
    if rng.random() < 0.5:
        record: dict[str, Any] = {"physics_parameters": {}, "data_transformations": [{"tool": "a"}]}
        what, changed = mutate_tree(rng, record)
        text = json_bytes(rng, changed).decode("utf-8", "replace")
    else:
        what, text = "nonsense", str(rng.choice(NONSENSE)).encode("utf-8", "replace").decode()
    arrays["_metadata"] = np.array(rng.choice((text, text.encode(), [text, text])))
    return what, pack(members_of(arrays))


def _blind(rng: random.Random, arrays: Arrays) -> Named:
    return mutate_bytes(rng, pack(members_of(arrays), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))


CHANGES: tuple[tuple[str, Callable[[random.Random, Arrays], Named]], ...] = (
    *(("array", _array),) * 5,
    ("member", _member),
    ("bytes of a member", _bytes_of_member),
    ("bytes of a member", _bytes_of_member),
    ("header", _header),
    ("claim", _claim),
    ("method", _method),
    ("metadata", _metadata),
    *(("blind", _blind),) * 3,
)
