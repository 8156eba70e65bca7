"""Reconstructions as NPZ files, and folders of them in a fixed order.

The names of the object, the probe and the algorithm are those that comparison scripts of
the field look for; `RECONSTRUCTION_KEYS` lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap import provenance
from fly64_dose_overlap.arrays import AnyArray
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.atomic import read_json, write_json_atomic
from fly64_dose_overlap.files.dataset import read_record
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.provenance import Record

Kind = Literal["learned", "iterative", "reference"]

RECONSTRUCTED_OBJECT = "reconstructed_object"
RECONSTRUCTED_PROBE = "reconstructed_probe"
ALGORITHM = "algorithm"
LOSS = "loss"
FLUX = "flux"
RECONSTRUCTION_KEYS = (
    RECONSTRUCTED_OBJECT,
    RECONSTRUCTED_PROBE,
    rules.XCOORDS,
    rules.YCOORDS,
    LOSS,
    ALGORITHM,
    rules.METADATA,
)
HEADING = "reconstruction"
"""Entry of the metadata that holds method, kind and settings."""
MANIFEST = "manifest.json"
MAX_ITERATIONS = 10**6
"""Of the list of losses, ten times the epochs that params.yaml allows."""

_SLUG = re.compile(r"(?=.{1,100}$)[a-z0-9]+([-_][a-z0-9]+)*")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What one method made of one dataset.

    Attributes
    ----------
    method : str
        Short name of the method in lower case, digits, hyphens and underscores; names its file.
    label : str
        Name of the method for tables and pictures.
    kind : {"learned", "iterative", "reference"}
        Where the object comes from: a trained network, an iteration, or neither.
    obj : (y, x) complex64
        Transmission on the grid of the dataset's object, not aligned with anything.
    probe : (mode, y, x) complex64, sqrt(photons)
        N x N incoherent modes that the object belongs to.
    positions_px : (frame, 2) float64, object pixels
        (y, x) of the object pixel under patch pixel [N/2, N/2], in the dataset's order.
    flux : (frame,) float64 or None
        Light of each frame in that of the probe, where the method found it.
    loss : (iteration,) float64
        Whatever the method minimised, per iteration; empty if it minimised nothing.
    settings : dict
        Settings of the method, as JSON has them.
    record : dict
        Provenance of the data and of the reconstruction.
    """

    method: str
    label: str
    kind: Kind
    obj: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    loss: NDArray[np.float64]
    settings: dict[str, Any]
    record: Record
    flux: NDArray[np.float64] | None = None

    def metadata(self) -> str:
        """Return provenance, method, kind and settings as JSON text, equal for equal ones."""
        heading = {"method": self.method, "kind": self.kind, "settings": self.settings}
        return provenance.dumps({**self.record, HEADING: heading})


def write_reconstruction(path: Path | str, reconstruction: Reconstruction) -> None:
    """Check a reconstruction and write it; equal ones give equal bytes.

    Raises
    ------
    StudyError
        If `checked` refuses it; nothing is written then.
    """
    r = checked(reconstruction, where=str(path))
    members = {
        RECONSTRUCTED_OBJECT: r.obj,
        RECONSTRUCTED_PROBE: r.probe,
        rules.XCOORDS: r.positions_px[:, 1],
        rules.YCOORDS: r.positions_px[:, 0],
        LOSS: r.loss,
        ALGORITHM: np.array(r.label),
        rules.METADATA: np.array(r.metadata()),
    }
    write_npz(path, members if r.flux is None else {**members, FLUX: r.flux})


def read_reconstruction(path: Path | str) -> Reconstruction:
    """Read and check a reconstruction.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If the file is damaged, lacks an entry, or `checked` refuses what it holds.
    """
    where = str(path)
    with NpzReader(path) as reader:
        missing = [key for key in RECONSTRUCTION_KEYS if key not in reader]
        if missing:
            held = ", ".join(reader) or "nothing"
            raise StudyError(where, f"lacks {', '.join(map(repr, missing))}", f"the file holds {held}")
        entries = {key: reader.load(key) for key in RECONSTRUCTION_KEYS if key != rules.METADATA}
        flux = rules.check_reals(where, FLUX, reader.load(FLUX)) if FLUX in reader else None
        record = read_record(reader)
    heading = record.pop(HEADING, None)
    if not isinstance(heading, dict):
        raise StudyError(where, f"'{rules.METADATA}' has no entry {HEADING!r} with method, kind and settings")
    fields, label = cast(dict[str, Any], heading), entries[ALGORITHM]
    if label.size != 1 or label.dtype.kind != "U":
        raise StudyError(where, f"'{ALGORITHM}' must be one text, got {label.dtype} {label.shape}")
    found = Reconstruction(
        method=fields.get("method", ""),
        label=label.item(),
        kind=fields.get("kind", ""),
        obj=entries[RECONSTRUCTED_OBJECT],
        probe=entries[RECONSTRUCTED_PROBE],
        positions_px=_positions(where, entries[rules.XCOORDS], entries[rules.YCOORDS]),
        loss=entries[LOSS],
        settings=fields.get("settings", {}),
        record=record,
        flux=flux,
    )
    return checked(found, where=where)


def write_reconstructions(folder: Path | str, reconstructions: Iterable[Reconstruction]) -> None:
    """Write reconstructions as they come, one file per method, and at last the manifest.

    A folder without its manifest is thus one that was not finished.

    Raises
    ------
    StudyError
        If a method comes twice, none comes, or one breaks a rule.
    """
    folder = Path(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    methods: list[str] = []
    for reconstruction in reconstructions:
        if reconstruction.method in methods:
            raise StudyError(str(folder), f"method {reconstruction.method!r} comes twice")
        write_reconstruction(folder / f"{reconstruction.method}.npz", reconstruction)
        methods.append(reconstruction.method)
    if not methods:
        raise StudyError(str(folder), "there is no reconstruction to write")
    write_json_atomic(folder / MANIFEST, {"methods": methods})


class StoredReconstructions(Sequence[Reconstruction]):
    """Reconstructions in files, each read and checked whenever it is asked for.

    Parameters
    ----------
    paths : sequence of Path
        Each file holds the method that its name says, or is refused when it is read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        """Read a reconstruction.

        Raises
        ------
        StudyError
            As `read_reconstruction`, or if the file holds another method than its name says.
        """
        path = self._paths[index]
        found = read_reconstruction(path)
        if found.method != path.stem:
            raise StudyError(str(path), f"holds the method {found.method!r}, expected {path.stem!r}")
        return found


def read_reconstructions(*folders: Path | str) -> StoredReconstructions:
    """Find all reconstructions of some folders, in the order of their manifests.

    Each is read only when it is asked for: those of a large scan need not fit into memory
    together.

    Raises
    ------
    MissingFileError
        If a manifest, or a file that it names, is not there.
    StudyError
        If a manifest is malformed, or a folder holds an NPZ file that it does not name.
    """
    return StoredReconstructions([path for folder in folders for path in _files_of(Path(folder))])


def _files_of(folder: Path) -> list[Path]:
    methods = _read_manifest(folder / MANIFEST)
    unknown = sorted({file.name for file in folder.glob("[!.]*.npz")} - {f"{name}.npz" for name in methods})
    if unknown:
        raise StudyError(str(folder), f"holds {', '.join(unknown)}, which {MANIFEST} does not name")
    paths = [folder / f"{method}.npz" for method in methods]
    for path in paths:
        if not path.exists():
            raise MissingFileError(str(path), f"no such file, though {MANIFEST} names {path.stem!r}")
    return paths


def _read_manifest(path: Path) -> list[str]:
    where = str(path)
    content = read_json(path, missing="the reconstructions were not finished")
    methods: Any = cast(dict[str, Any], content).get("methods") if isinstance(content, dict) else None
    if not isinstance(methods, list) or not all(map(_is_slug, cast(list[Any], methods))):
        raise StudyError(where, 'must be {"methods": [...]} with names of methods')
    names = cast(list[str], methods)
    if not names or len(set(names)) != len(names):
        raise StudyError(where, f"must name at least one method, and each once, got {names}")
    return names


def _is_slug(value: Any) -> bool:
    return isinstance(value, str) and _SLUG.fullmatch(value) is not None


def check_heading(where: str, method: Any, label: Any, kind: Any, settings: Any) -> None:
    """Refuse what `checked` refuses of the text about a reconstruction."""
    if not _is_slug(method):
        hint = "use lower case, digits, hyphens and underscores"
        raise StudyError(where, f"{method!r} is no name of a method", hint)
    if kind not in get_args(Kind):
        raise StudyError(where, f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if not isinstance(settings, dict):
        raise StudyError(where, f"settings must be a mapping, got {type(settings).__name__}")
    try:
        provenance.dumps(cast(dict[str, Any], settings))
    except (TypeError, ValueError) as error:
        raise StudyError(where, f"settings must be JSON ({error})") from None
    if not isinstance(label, str) or not label.strip() or len(label.splitlines()) != 1:
        raise StudyError(where, f"the label ('{ALGORITHM}') must be one line of text, got {label!r}")


def checked(reconstruction: Reconstruction, *, where: str) -> Reconstruction:
    """Return a reconstruction in the precision of its file, once it is known to be sound.

    Raises
    ------
    StudyError
        If the method is no plain name, the kind unknown, the label no line of text or the settings
        no JSON; if object or probe is real, has other axes or values that are not finite; if a
        probe window lies outside the object; or if the loss is no list of finite numbers.
    """
    r = reconstruction
    check_heading(where, r.method, r.label, r.kind, r.settings)
    obj = rules.check_image(where, RECONSTRUCTED_OBJECT, r.obj)
    probe = rules.check_image(where, RECONSTRUCTED_PROBE, r.probe, "(mode, y, x)")
    positions_px = _positions(where, r.positions_px[:, 1], r.positions_px[:, 0])
    side = rules.square_side(where, RECONSTRUCTED_PROBE, probe)
    rules.check_windows(where, positions_px[:, 0], positions_px[:, 1], obj.shape, side)
    if r.loss.size > MAX_ITERATIONS:
        raise StudyError(where, f"'{LOSS}' has {r.loss.size} entries, at most {MAX_ITERATIONS} are read")
    loss = rules.check_reals(where, LOSS, r.loss)
    if r.flux is not None and (r.flux.shape != (len(positions_px),) or not (r.flux > 0).all()):
        raise StudyError(
            where, f"'{FLUX}' must hold a number above zero for each of {len(positions_px)} frames"
        )
    return replace(r, obj=obj, probe=probe, positions_px=positions_px, loss=loss)


def _positions(where: str, x: AnyArray, y: AnyArray) -> NDArray[np.float64]:
    if x.size != y.size or not x.size:
        problem = f"'{rules.XCOORDS}' has {x.size} entries and '{rules.YCOORDS}' {y.size}"
        raise StudyError(where, problem, "there must be one of each per frame")
    checked_y, checked_x = (
        rules.check_reals(where, rules.YCOORDS, y),
        rules.check_reals(where, rules.XCOORDS, x),
    )
    return np.stack([checked_y, checked_x], axis=1)
