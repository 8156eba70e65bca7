"""Scans in the HDF5 files of other programs, under the names of this project's own NPZ files.

Each format is one function, which names the datasets that it understands and leaves the others
alone: what a file does not say is not guessed. Lengths of positions become object pixels by
wavelength, distance and size of the detector's pixels, and the grid of the object is laid so that
every window lies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import AnyArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.hdf import HdfFile
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.scan import HC_EV_M

COUNTS = "counts"
MARGIN_PX = 2
"""Around the windows of a scan whose object's grid is not given."""
ELEMENTARY_CHARGE = 1.602176634e-19
"""Coulomb: joules of an electronvolt (CODATA 2018, exact)."""
UNITS = {
    "m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "nm": 1e-9, "a": 1e-10,
    "angstrom": 1e-10, "pm": 1e-12, "j": 1 / ELEMENTARY_CHARGE, "ev": 1.0, "kev": 1e3,
}  # fmt: skip
"""Metres, and electronvolts."""
PER_METRE = {"a^-1": 1e10, "nm^-1": 1e9, "1/nm": 1e9, "1/a": 1e10}
MOST_PIXELS = 2**28
DATASETS = ("frames", "y", "x", "probe", "object", "mask", "bad", "background")
"""What a mapping may name the datasets of: ``mask`` is true where a pixel counts, ``bad`` where none does."""
NUMBERS = ("energy_ev", "distance_m", "detector_pixel_m", "object_pixel_m")
"""What it may state, or name a dataset of one number of."""
"""Of an object's grid that is laid about the positions of a file."""


@dataclass
class Found:
    """What a format's function understood of a file.

    Attributes
    ----------
    name : str
        Of the format.
    frames : str
        Dataset of the frames; axes before the last two are those of the scan.
    positions_m : (frame, 2) float64, optional
        (y, x), metres.
    positions_px : (frame, 2) float64, optional
        (y, x), object pixels, where the file has these instead.
    energy_ev, distance_m, detector_pixel_m, object_pixel_m : float, optional
    arrays : dict
        Probe, object and mask, if the file has them.
    object_centre_m : (2,) float64, optional
        Of the object among the arrays, (y, x), in the coordinates of the positions.
    """

    name: str
    frames: str | None
    positions_m: NDArray[np.float64] | None = None
    positions_px: NDArray[np.float64] | None = None
    energy_ev: float | None = None
    distance_m: float | None = None
    detector_pixel_m: float | None = None
    object_pixel_m: float | None = None
    arrays: dict[str, AnyArray] = field(default_factory=lambda: {})
    object_centre_m: NDArray[np.float64] | None = None


def _pairs(file: HdfFile, *names: str) -> NDArray[np.float64]:
    """Return two lists of numbers side by side."""
    return np.stack([file.load(name).ravel() for name in names], axis=1).astype(np.float64)


def _in_units(file: HdfFile, name: str | None, default: float) -> float | None:
    """Return a number in metres or electronvolts; ``default`` is the unit where none is stated."""
    value = file.number(name)
    if value is None or name is None:
        return None
    return value * _unit(file, name, default)


def _unit(file: HdfFile, name: str, default: float) -> float:
    stated = file.attribute(name, "units")
    if stated is None or stated == "":
        return default
    if str(stated).lower() not in UNITS:
        known = ", ".join(sorted(UNITS))
        raise StudyError(file.where, f"{name} is in {stated!r}", f"understood are {known}")
    return UNITS[str(stated).lower()]


def cxi(file: HdfFile) -> Found | None:
    """Understand CXI (Maia, Nat. Methods 9, 854, 2012) and NXcxi_ptycho: SI units where none are stated."""
    entry = next((name for name in file.groups() if f"{name}/instrument_1" in file), None)
    if entry is None or not ("cxi_version" in file or entry == "entry_1"):
        return None
    source, detector = f"{entry}/instrument_1/source_1", f"{entry}/instrument_1/detector_1"
    beam, data = f"{entry}/instrument_1/beam_1", f"{entry}/data_1"
    joule = UNITS["j"]
    energy = _in_units(file, file.first(f"{source}/energy", f"{beam}/energy"), joule)
    found = Found(
        "CXI",
        file.first(f"{data}/data", f"{detector}/data"),
        energy_ev=energy or _in_units(file, file.first(f"{beam}/incident_energy"), joule),
        distance_m=_in_units(file, file.first(f"{detector}/distance"), 1.0),
        detector_pixel_m=_in_units(file, file.first(f"{detector}/x_pixel_size"), 1.0),
    )
    places = (f"{entry}/sample_1/geometry_1/translation", f"{data}/translation", f"{detector}/translation")
    if name := file.first(*places):
        # (x, y, z) of each frame.
        translation = file.load(name).reshape(-1, file.header(name)[0][-1]).astype(np.float64)
        found.positions_m = translation[:, [1, 0]] * _unit(file, name, 1.0)
    if name := file.first(f"{source}/probe", f"{source}/illumination", f"{detector}/probe"):
        found.arrays[rules.PROBE] = file.load(name)
    if name := file.first(f"{detector}/mask", f"{detector}/pixel_mask"):
        # Bits say what is wrong with a pixel; none of them, that it counts.
        found.arrays[rules.MASK] = file.load(name) == 0
    return found


def ptyd(file: HdfFile) -> Found | None:
    """Understand data of ptypy (its doc/rst/ptyd.rst): energy in keV, positions (y, x) in metres."""
    if not ("chunks/0/data" in file and "meta" in file):
        return None
    if file.groups("chunks") != ["0"]:
        problem = f"has {len(file.groups('chunks'))} chunks"
        raise StudyError(file.where, problem, "save it in one: ptypy's save = 'merge'")
    pixel = file.load("meta/psize") if "meta/psize" in file else np.zeros(0)
    found = Found(
        "ptyd",
        "chunks/0/data",
        energy_ev=_in_units(file, file.first("meta/energy"), 1e3),
        distance_m=_in_units(file, file.first("meta/distance"), 1.0),
        detector_pixel_m=float(pixel.ravel()[0]) if pixel.size else None,
    )
    if name := file.first("chunks/0/positions"):
        found.positions_m = file.load(name).astype(np.float64)
    for name in ("chunks/0/weights", "meta/weight2d"):
        if name in file and np.prod(file.header(name)[0]):
            found.arrays[rules.MASK] = file.load(name) > 0
            break
    return found


def ptychodus(file: HdfFile) -> Found | None:
    """Understand a product of ptychodus (``ptychodus.api.io``), with its patterns in the same file if any."""
    if "probe_position_x_m" not in file or "probe" not in file:
        return None
    obj, probe, pixel = file.load("object"), file.load("probe"), file.attribute("object", "pixel_width_m")
    centre = [file.attribute("object", key) or 0.0 for key in ("center_y_m", "center_x_m")]
    return Found(
        "ptychodus",
        file.first("patterns", "dp", "diffraction"),
        positions_m=_pairs(file, "probe_position_y_m", "probe_position_x_m"),
        energy_ev=file.attribute("/", "photon_energy_eV") or file.attribute("/", "probe_energy_eV"),
        distance_m=file.attribute("/", "detector_object_distance_m"),
        object_pixel_m=pixel,
        arrays={rules.PROBE: probe.reshape(-1, *probe.shape[-2:]), rules.OBJECT: obj},
        object_centre_m=np.array(centre, np.float64),
    )


def ptychoshelves(file: HdfFile) -> Found | None:
    """Understand frames for PtychoShelves (``dp`` with ``ppX``, ``ppY``), or a result of it (MATLAB v7.3)."""
    if file.first("dp") and file.first("ppX") and file.first("ppY"):
        found = Found("PtychoShelves", "dp")
        found.positions_m = _pairs(file, "ppY", "ppX")
    elif file.first("probe") and file.first("outputs/probe_positions"):
        # MATLAB stores the first axis last: (2, frame) there is (frame, 2), x first, from pixel 1.
        positions = file.load("outputs/probe_positions").astype(np.float64)
        found = Found("PtychoShelves", file.first("dp", "fmag"))
        found.positions_px = positions.reshape(2, -1)[::-1].T
        found.arrays[rules.PROBE] = np.swapaxes(file.load("probe"), -1, -2)
    else:
        return None
    found.object_pixel_m = file.number(file.first("p/dx_spec"))
    return found


def emd(file: HdfFile) -> Found | None:
    """Understand a data cube of py4DSTEM: a raster of frames, with steps in both planes."""
    cubes = (each for each in file.names() if each.endswith("/data") and len(file.header(each)[0]) == 4)
    name = next(cubes, None)
    if name is None:
        return None
    group = name.removesuffix("/data")
    found, (rows, columns, side, _) = Found("EMD", name), file.header(name)[0]
    steps = [_step(file, f"{group}/dim{axis}", units) for axis, units in enumerate((UNITS, UNITS, PER_METRE))]
    if steps[0] and steps[1]:
        lines = np.indices((rows, columns)).reshape(2, -1).T
        found.positions_m = lines * np.array(steps[:2], np.float64)
    if steps[2]:
        found.object_pixel_m = 1 / (side * steps[2])
    return found


def _step(file: HdfFile, name: str, units: dict[str, float]) -> float | None:
    """Return the step along an axis, of which a file holds two values or all; None without a unit."""
    known = file.load(name).astype(np.float64).ravel() if name in file else np.zeros(0)
    unit = units.get(str(file.attribute(name, "units") or "").lower())
    return None if unit is None or len(known) < 2 else float(known[1] - known[0]) * unit


def mapped(fields: Mapping[str, str | float], file: HdfFile | NpzReader) -> Found:
    """Understand any file by a mapping that names its datasets, `DATASETS`, and states `NUMBERS`.

    ``unit`` is that of the positions, of `UNITS` or ``px``.

    Raises
    ------
    StudyError
        If a name is unknown, a dataset is missing, or positions have no unit.
    """
    where = f"{file.where}: base.fields"
    if unknown := sorted(set(fields) - {*DATASETS, *NUMBERS, "unit"}):
        known = ", ".join((*DATASETS, *NUMBERS, "unit"))
        raise StudyError(where, f"{', '.join(unknown)} is unknown", f"it may have {known}")
    for key in DATASETS:
        if key in fields and str(fields[key]) not in file:
            held = ", ".join([*(file.names() if isinstance(file, HdfFile) else file)][:20])
            raise StudyError(where, f"{key}: there is no {fields[key]!r}", f"the file holds {held}")
    named = {key: str(fields[key]) for key in DATASETS if key in fields}
    found = Found("mapping", named.get("frames"))
    for key in NUMBERS:
        if key in fields:
            setattr(found, key, _stated(fields[key], file, f"{where}.{key}"))
    ours = {"probe": rules.PROBE, "object": rules.OBJECT, "mask": rules.MASK, "background": rules.BACKGROUND}
    found.arrays |= {name: file.load(named[key]) for key, name in ours.items() if key in named}
    if "bad" in named:
        found.arrays[rules.MASK] = file.load(named["bad"]) == 0
    if "y" in named or "x" in named:
        if not {"x", "y"} <= named.keys():
            raise StudyError(where, "names one of y and x", "positions have both")
        unit = fields.get("unit")
        if unit != "px" and unit not in UNITS:
            known = ", ".join(("px", *UNITS))
            raise StudyError(where, f"unit of y and x is {unit!r}", f"state one of {known}")
        positions = np.stack([file.load(named[axis]).ravel() for axis in "yx"], axis=1).astype(np.float64)
        if unit == "px":
            found.positions_px = positions
        else:
            found.positions_m = positions * UNITS[str(unit)]
    return found


def _stated(value: str | float, file: HdfFile | NpzReader, where: str) -> float:
    """Return a number that is stated, or is the only one of a dataset."""
    if not isinstance(value, str):
        return float(value)
    array = file.load(value)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise StudyError(
            where, f"{value!r} holds {array.dtype} {array.shape}", "name a dataset of one number"
        )
    return float(array.reshape(()))


FORMATS: tuple[Callable[[HdfFile], Found | None], ...] = (cxi, ptyd, ptychodus, ptychoshelves, emd)


class ForeignScan:
    """A scan in a file of another program, with the interface of `NpzReader` and the names of our own files.

    It closes the file.

    Raises
    ------
    StudyError
        If it is of no format that is known and not mapped, or does not say what its lengths are.
    """

    def __init__(self, file: HdfFile | NpzReader, fields: Mapping[str, str | float] | None = None) -> None:
        self._file = file
        try:
            found = mapped(fields, file) if fields else _understood(file)
            self.format = found.name
            self._frames = found.frames
            self._arrays, self.physics = in_pixels(found, self._file)
        except BaseException:
            self._file.__exit__()
            raise

    def __enter__(self) -> ForeignScan:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    def __iter__(self) -> Iterator[str]:
        yield from self._arrays
        if self._frames is not None:
            yield COUNTS

    def __contains__(self, key: str) -> bool:
        return key in self._arrays or (key == COUNTS and self._frames is not None)

    def is_pickled(self, key: str) -> bool:
        """Return that nothing is."""
        return False

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and precision of an array; frames are (frame, y, x)."""
        if key != COUNTS or self._frames is None:
            return self._arrays[key].shape, self._arrays[key].dtype
        shape, dtype = self._file.header(self._frames)
        return (int(np.prod(shape[:-2])), *shape[-2:]), dtype

    def load(self, key: str) -> AnyArray:
        """Return an array."""
        return np.concatenate(list(self.stream(key))) if key == COUNTS else self._arrays[key]

    def stream(self, key: str, rows: int = 64) -> Iterator[AnyArray]:
        """Yield blocks of frames."""
        assert key == COUNTS
        assert self._frames is not None
        shape, _ = self._file.header(self._frames)
        for block in self._file.stream(self._frames, max(1, rows // int(np.prod(shape[1:-2])))):
            yield block.reshape(-1, *shape[-2:])


def _understood(file: HdfFile | NpzReader) -> Found:
    assert isinstance(file, HdfFile)
    found = next((each for make in FORMATS if (each := make(file))), None)
    if found is None:
        known = ", ".join(("CXI", "ptypy's ptyd", "ptychodus", "PtychoShelves", "EMD"))
        hint = f"name its datasets in base.fields; it holds {', '.join(file.names()[:20])}"
        raise StudyError(file.where, f"is HDF5 of no format that is known ({known})", hint)
    return found


def in_pixels(found: Found, file: HdfFile | NpzReader) -> tuple[dict[str, AnyArray], dict[str, float]]:
    """Return the arrays of a scan under our names, positions in object pixels, and its optics."""
    arrays = dict(found.arrays)
    side = file.header(found.frames)[0][-1] if found.frames else arrays[rules.PROBE].shape[-1]
    pixel = found.object_pixel_m
    if pixel is None and found.energy_ev and found.distance_m and found.detector_pixel_m:
        pixel = HC_EV_M / found.energy_ev * found.distance_m / (side * found.detector_pixel_m)
    positions = found.positions_px
    if positions is None and found.positions_m is not None:
        if pixel is None:
            names = ("energy_ev", "distance_m", "detector_pixel_m")
            missing = [name for name in names if not getattr(found, name)]
            problem = f"positions are lengths, but the file does not say {', '.join(missing)}"
            raise StudyError(file.where, problem, "map the file, and state them: base.fields")
        positions = found.positions_m / pixel
    if positions is not None and np.isfinite(positions).all():
        obj = arrays.get(rules.OBJECT)
        if obj is None:
            positions = positions - np.floor(positions.min(axis=0)) + side // 2 + MARGIN_PX
            shape = np.ceil(positions.max(axis=0)) + side - side // 2 + MARGIN_PX
            if shape.prod() > MOST_PIXELS:
                problem = f"the positions span {shape[0]:.4g} x {shape[1]:.4g} object pixels of {pixel} m"
                raise StudyError(file.where, problem, "are lengths, energy and pixels in the units stated?")
            arrays[rules.OBJECT] = np.ones(tuple(shape.astype(int)), np.complex64)
        elif found.object_centre_m is not None and pixel:
            # A position is the middle of a window, from the middle of the object.
            middle = (np.array(obj.shape[-2:]) - side) / 2 + side // 2
            positions = positions - found.object_centre_m / pixel + middle
        arrays[rules.YCOORDS], arrays[rules.XCOORDS] = (np.ascontiguousarray(axis) for axis in positions.T)
    known = {
        "energy_ev": found.energy_ev,
        "object_pixel_m": pixel,
        "detector_pixel_m": found.detector_pixel_m,
        "detector_distance_m": found.distance_m,
    }
    return arrays, {name: float(value) for name, value in known.items() if value}
