"""Everything that reads files or values that others wrote, with good input to start from.

A `Target` makes a bad input in the working directory, and reads it as the study does. What
is accepted is also used, so that "accepted" means more than "not looked at".
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

import factories
import made_reconstructions
from faults.fuzz_foreign import make_foreign, use_foreign
from faults.fuzz_models import (
    CORRECTOR,
    SUPERVISED,
    bundle_maker,
    make_checkpoint,
    use_checkpoint,
    use_corrector,
    use_supervised,
)
from faults.mutations import (
    NONSENSE,
    Arrays,
    fresh_path,
    json_bytes,
    members_of,
    mutate_bytes,
    mutate_tree,
    pack,
)
from faults.npz_mutations import make_bomb, mutate_npz
from fly64_dose_overlap.config import load_params, parse_params
from fly64_dose_overlap.files.dataset import read_base, read_scan, read_truth, write_base, write_scan
from fly64_dose_overlap.files.own_npz import read_user_base
from fly64_dose_overlap.files.reconstruction import (
    read_reconstructions,
    write_reconstruction,
    write_reconstructions,
)
from fly64_dose_overlap.pipeline.lock import parse_lock, read_lock
from fly64_dose_overlap.pipeline.matrix.plan import Selection, plan
from fly64_dose_overlap.pipeline.timings import FOLDER, read_timing
from fly64_dose_overlap.scores.limit import read_limit, write_limit

SIDE, FRAMES = 8, 6
PARAMS_TEXT = (factories.ROOT / "params.yaml").read_text(encoding="utf-8")
PARAMS: dict[str, Any] = yaml.safe_load(PARAMS_TEXT)


@dataclass(frozen=True)
class Target:
    """Something that reads.

    Attributes
    ----------
    make : callable
        Writes a bad input into the working directory, returns what was done.
    read : callable
        Reads it, and uses what was read.
    """

    make: Callable[[random.Random], str]
    read: Callable[[], Any]


def dataset_arrays() -> Arrays:
    """Return the arrays of a valid dataset with groups."""
    scan, obj = factories.small_scan(frames=FRAMES, side=SIDE)
    return {
        "diffraction": np.sqrt(scan.counts[:]),
        "objectGuess": obj,
        "probeGuess": scan.probe[0],
        "xcoords": scan.positions_px[:, 1],
        "ycoords": scan.positions_px[:, 0],
        "xcoords_start": scan.positions_px[:, 1],
        "scan_index": scan.scan_index,
        "groups": scan.groups,
        "_metadata": np.array(json.dumps(scan.record)),
    }


def user_arrays() -> Arrays:
    """Return the arrays of a file that only the import understands: counts, several modes."""
    arrays = dataset_arrays()
    counts = np.rint(arrays.pop("diffraction") ** 2).astype(np.uint16)
    probe = np.stack([arrays["probeGuess"], 0.2j * arrays["probeGuess"]])
    return {**arrays, "counts": counts[..., None], "probeGuess": probe}


def npz_maker(name: str, arrays: Callable[[], Arrays]) -> Callable[[random.Random], str]:
    """Return what makes a bad NPZ file, now and then a bomb or a link."""

    def make(rng: random.Random) -> str:
        path = fresh_path(name)
        if rng.random() < 0.01:
            return make_link(rng, path, pack(members_of(arrays())))
        if rng.random() < 0.005:
            what, content = make_bomb(rng, arrays())
        else:
            what, content = mutate_npz(rng, arrays())
        path.write_bytes(content)
        return what

    return make


def make_link(rng: random.Random, path: Path, content: bytes) -> str:
    """Put a symbolic link in the place of a file."""
    good = path.with_name("good")
    good.write_bytes(content)
    target = rng.choice((good.name, path.name, "nowhere", ".", "/dev/zero", "/dev/null", "/proc/self/mem"))
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return f"link to {target}"


def text_maker(name: str, tree: Callable[[], Any], dump: Callable[[random.Random, Any], bytes]) -> Any:
    """Return what makes bad text: wrong in one entry, in bytes, or in both."""

    def make(rng: random.Random) -> str:
        path = fresh_path(name)
        if rng.random() < 0.01:
            return make_link(rng, path, dump(rng, tree()))
        what, content = "", tree()
        if rng.random() < 0.7:
            what, content = mutate_tree(rng, content)
        data = dump(rng, content)
        if not what or rng.random() < 0.1:
            done, data = mutate_bytes(rng, data)
            what = f"{what} {done}"
        path.write_bytes(data)
        return what

    return make


def yaml_bytes(rng: random.Random, tree: Any) -> bytes:
    """Write YAML, now and then with what only YAML has."""
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=False)
    trick = rng.random()
    lines = text.splitlines(keepends=True)
    if trick < 0.1:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines or ["a: 1\n"]))
    elif trick < 0.2:
        lines.insert(0, rng.choice(YAML_TRICKS))
    return "".join(lines).encode("utf-8", "surrogatepass")


_LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 10))
_MERGES = "".join(f"m{n}: &m{n}\n  <<: [{', '.join([f'*m{n - 1}'] * 9)}]\n" for n in range(1, 10))
YAML_TRICKS = (
    f"l0: &l0 [lol]\n{_LAUGHS}",
    f"m0: &m0 {{a: 1}}\n{_MERGES}",
    f"dose: !!python/object/apply:os.mkdir [{'executed'}]\n",
    "dose: !!python/name:os.mkdir\n",
    "a: &a [*a]\n",
    "a: " + "[" * 3000 + "\n",
    "dose: 0x" + "f" * 30_000 + "\n",
    "dose: " + "1:" * 15_000 + "1\n",
    "dose: 1_0_0_0\n",
    "? {a: b}\n: c\n",
    "dose: !!float ''\n",
    "dose: !!set {a, b}\n",
    "%YAML 9.9\n---\n",
    "--- a\n--- b\n",
    "\ufeff",
    "dose: !!binary x\n",
)


def reconstruction_arrays() -> Arrays:
    """Return the arrays of a valid reconstruction."""
    made = made_reconstructions.reconstructions()[1]
    path = Path("reconstruction-seed.npz")
    write_reconstruction(path, made)
    with np.load(path) as loaded:
        return {key: loaded[key] for key in loaded.files}


def write_folder() -> None:
    """Write a folder of reconstructions whose manifest will be bad."""
    if not Path("folder").is_dir():
        write_reconstructions("folder", made_reconstructions.reconstructions())


def read_copied_dataset() -> None:
    """Read a dataset as a method and as scores do, and write and read it again."""
    scan = read_scan("dataset.npz", gridsize=2, neighbor_count=7)
    write_scan("copy.npz", scan, read_truth("dataset.npz"))
    read_scan("copy.npz", gridsize=2, neighbor_count=7)


def read_folder() -> None:
    """Read reconstructions, and write them again elsewhere."""
    write_reconstructions("again", read_reconstructions("folder"))


def single_reconstruction() -> None:
    """Read one reconstruction, in a folder of its own."""
    Path("single/manifest.json").write_text('{"methods": ["lsqml_held_out"]}')
    for found in read_reconstructions("single"):
        write_reconstruction("again.npz", found)


def use_limit() -> None:
    """Read a limit, and ask it what evaluation asks."""
    limit = read_limit("limit.json")
    for dose in (limit.doses[0], limit.doses[-1]):
        limit.psnr_db("phase", dose, prior=True)
        limit.nrmse(dose)
        limit.frc(dose)
    assert isinstance(limit.converged, bool)
    write_limit("again.json", limit)


def use_lock() -> None:
    """Read a dvc.lock, as the matrix and the report do."""
    for stage in parse_lock(read_lock(Path("dvc.lock"))).values():
        assert all(out.path for out in stage.outs)


@cache
def lock_tree() -> Any:
    """Return two stages of the repository's own dvc.lock; not to be changed."""
    stages = yaml.safe_load((factories.ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {"schema": "2.0", "stages": {name: stages[name] for name in ("base", "train@refined")}}


def limit_tree() -> Any:
    """Return the content of a valid limit."""
    write_limit("limit-seed.json", made_reconstructions.limit_of())
    return json.loads(Path("limit-seed.json").read_text())


# Values of `dvc exp run -S`


VALUES = (
    *("-1", "abc", "nan", "inf", "null", "1e3", "1e400", "[1,2", "{a: 1}", "[]", "${dose}", "${oc.env:HOME}"),
    *(
        "${nope}",
        "'",
        '"',
        "a=b",
        "",
        " ",
        "\\",
        "true",
        "0x10",
        "1,2",
        "range(1,3)",
        "choice(1,2)",
        "glob(*)",
    ),
    *(
        "x" * 2000,
        "\u00b5",
        "\x1b[2J",
        "$(touch executed)",
        "`touch executed`",
        "!!int x",
        "../../x",
        "9" * 400,
    ),
)


def make_override(rng: random.Random) -> str:
    """Write an override of a parameter, most of them nonsense."""
    keys = ["stops", "colour", "stops.nope", "", "..", "overlap.views.dense.s_img", "~stops.seed", "+new.key"]
    keys += ["methods.map", "methods.map.epochs", "methods.refined.width", "learned", "iterative"]
    keys += [
        f"{section}.{key}" for section, values in PARAMS.items() if isinstance(values, dict) for key in values
    ]
    key = rng.choice(keys)
    override = rng.choice((f"{key}={rng.choice(VALUES)}",) * 6 + (key, f"{key}:={rng.choice(VALUES)}"))
    if rng.random() < 0.1:
        override = mutate_bytes(rng, override.encode("utf-8", "replace"))[1].decode("utf-8", "replace")
    Path("override.txt").write_text(override, encoding="utf-8")
    Path("params.yaml").write_text(PARAMS_TEXT, encoding="utf-8")
    return override


def use_override() -> None:
    """Plan a cell with the override, as ``dose-overlap matrix -S`` does."""
    override = Path("override.txt").read_text(encoding="utf-8")
    selection = Selection(doses=[1000], views=["sparse"], overrides=[override])
    plan(selection, committed=parse_params(PARAMS), params_file=Path("params.yaml"))


# Parameters by hypothesis


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from([value for value in NONSENSE if not isinstance(value, dict | list)]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def hypothetical_params(draw: Callable[[Any], Any]) -> Any:
    """Draw the content of params.yaml with one to three entries replaced."""
    content = json.loads(json.dumps(PARAMS))
    for _ in range(draw(st.integers(1, 3))):
        place, key = content, draw(st.sampled_from(sorted(content)))
        while isinstance(place[key], dict) and place[key] and draw(st.booleans()):
            place, key = place[key], draw(st.sampled_from(sorted(place[key])))
        place[key] = draw(TREES)
    return content


def use_base() -> None:
    """Read a base set, and write it."""
    write_base("again.npz", read_base("base.npz"))


def use_user_base() -> None:
    """Import a user's file, and write the base set."""
    write_base("again.npz", read_user_base("user.npz"))


TARGETS = {
    "base NPZ": Target(npz_maker("base.npz", dataset_arrays), use_base),
    "dataset NPZ": Target(npz_maker("dataset.npz", dataset_arrays), read_copied_dataset),
    "user's NPZ": Target(npz_maker("user.npz", user_arrays), use_user_base),
    "HDF5 of others": Target(make_foreign, use_foreign),
    "truth in NPZ": Target(npz_maker("dataset.npz", dataset_arrays), lambda: read_truth("dataset.npz").sum()),
    "reconstruction NPZ": Target(
        npz_maker("single/lsqml_held_out.npz", reconstruction_arrays), single_reconstruction
    ),
    "manifest": Target(
        text_maker("folder/manifest.json", lambda: {"methods": list(made_reconstructions.KINDS)}, json_bytes),
        read_folder,
    ),
    "params.yaml": Target(
        text_maker("params.yaml", lambda: PARAMS, yaml_bytes), lambda: load_params(Path("params.yaml"))
    ),
    "-S values": Target(make_override, use_override),
    "dvc.lock": Target(text_maker("dvc.lock", lock_tree, yaml_bytes), use_lock),
    "limit": Target(text_maker("limit.json", limit_tree, json_bytes), use_limit),
    "time": Target(
        text_maker(str(FOLDER / "0.json"), lambda: {"seconds": 1.5, "cpu_seconds": 1.0}, json_bytes),
        lambda: read_timing(Path.cwd(), "0"),
    ),
    "checkpoint": Target(make_checkpoint, use_checkpoint),
    "model bundle": Target(bundle_maker(CORRECTOR), use_corrector),
    "supervised bundle": Target(bundle_maker(SUPERVISED), use_supervised),
}


def prepare() -> None:
    """Make what no mutation touches, in the working directory."""
    write_folder()
    os.makedirs("single", exist_ok=True)
