"""Scans in the HDF5 files of other programs, under the names of this project's own NPZ files.

Each format is one function, which names the datasets that it understands and leaves the others
alone: what a file does not say is not guessed. Lengths of positions become object pixels by
wavelength, distance and size of the detector's pixels, and the grid of the object is laid so that
every window lies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import AnyArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.hdf import HdfFile
from fly64_dose_overlap.files.npz import NpzReader

COUNTS = "counts"
ELEMENTARY_CHARGE = 1.602176634e-19
"""Coulomb: joules of an electronvolt (CODATA 2018, exact)."""
LENGTHS = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1.0),
    "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "nm": 1e-9, "a": 1e-10,
    "angstrom": 1e-10, "pm": 1e-12,
}  # fmt: skip
"""Metres."""
ENERGIES = {"j": 1 / ELEMENTARY_CHARGE, "ev": 1.0, "kev": 1e3}
"""Electronvolts."""
SQUARE = 1e-3
"""Relative difference of the two sides of a pixel that is called square."""
PER_METRE = {"a^-1": 1e10, "nm^-1": 1e9, "1/nm": 1e9, "1/a": 1e10}


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
    transposed : bool
        Whether frames lie (frame, x, y).
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
    transposed: bool = False


def pairs(file: HdfFile | NpzReader, *names: str) -> NDArray[np.float64]:
    """Return two lists of numbers side by side."""
    lists = [file.load(name).ravel() for name in names]
    wrong = not lists[0].size or any(each.dtype.kind not in "iuf" for each in lists)
    if wrong or len({each.size for each in lists}) > 1:
        found = " and ".join(f"{each.dtype} {each.shape}" for each in lists)
        raise StudyError(
            file.where, f"{' and '.join(names)} hold {found}", "they hold a number of each frame"
        )
    return np.stack(lists, axis=1).astype(np.float64)


def _positions(file: HdfFile, name: str, axes: int = 2) -> NDArray[np.float64]:
    """Return coordinates of each frame, (frame, axes)."""
    found = file.load(name)
    if found.dtype.kind not in "iuf" or found.ndim < 2 or found.shape[-1] != axes or not found.size:
        problem = f"{name} holds {found.dtype} {found.shape}"
        raise StudyError(file.where, problem, f"positions are (frame, {axes}) real numbers")
    return found.reshape(-1, axes).astype(np.float64)


def _images(file: HdfFile, name: str) -> AnyArray:
    """Return images, (..., y, x)."""
    found = file.load(name)
    if found.ndim < 2 or not found.size:
        raise StudyError(file.where, f"{name} has shape {found.shape}", "it holds images (y, x)")
    return found


def _modes(file: HdfFile, name: str) -> AnyArray:
    """Return the modes of a probe, of which files of ptychodus may have a set for each frame."""
    found = _images(file, name)
    if found.ndim == 4 and len(found) > 1:
        problem = f"{name} has shape {found.shape}: a probe that changes from frame to frame"
        raise StudyError(file.where, problem, "one of modes that all frames share is understood")
    return found[0] if found.ndim == 4 else found


def _length(file: HdfFile, name: str | None) -> float | None:
    """Return a number in metres, which it is in where no unit is stated."""
    value = file.number(name)
    return None if value is None or name is None else value * unit_of(file, name, LENGTHS, 1.0)


def _energy(file: HdfFile, name: str | None, default: float) -> float | None:
    """Return a number in electronvolts; ``default`` is the unit where none is stated."""
    value = file.number(name)
    return None if value is None or name is None else value * unit_of(file, name, ENERGIES, default)


def unit_of(file: HdfFile, name: str, units: Mapping[str, float], default: float) -> float:
    """Return the unit that a dataset states, which must be one of some."""
    stated = stated_unit(file, name)
    if stated and stated not in units:
        raise StudyError(file.where, f"{name} is in {stated!r}", f"understood are {', '.join(sorted(units))}")
    return units[stated] if stated else default


def _square(file: HdfFile, name: str, x: float | None, y: float | None) -> float | None:
    """Return the side of a pixel, which must be square."""
    if x is not None and y is not None and abs(x - y) > SQUARE * abs(x):
        problem = f"{name}: pixels are {y:.6g} m high and {x:.6g} m wide"
        raise StudyError(file.where, problem, "bin or crop frames to square pixels")
    return y if x is None else x


def _side(file: HdfFile, name: str) -> float | None:
    """Return the side of a pixel from a dataset with one number, or two; None where there is none."""
    if name not in file:
        return None
    sides = file.load(name).ravel()
    if not sides.size or sides.dtype.kind not in "iuf" or not np.isfinite(sides).all():
        return None
    return _square(file, name, float(sides[-1]), float(sides[0]))


def _number(file: HdfFile, name: str, *keys: str) -> float | None:
    """Return the first of some attributes that is there, which must be a number."""
    for key in keys:
        value = file.attribute(name, key)
        if value is not None:
            if isinstance(value, int | float) and np.isfinite(value):
                return float(value)
            raise StudyError(file.where, f"attribute {key} of {name} is {value!r}", "it must be one number")
    return None


def stated_unit(file: HdfFile, name: str) -> str:
    """Return the unit of a dataset in lower case, empty where none is stated."""
    stated = file.attribute(name, "units")
    if isinstance(stated, np.ndarray) and stated.ndim == 1 and len({*map(str, stated)}) == 1:  # of each axis
        stated = stated[0].decode("utf-8", "replace") if isinstance(stated[0], bytes) else stated[0]
    return "" if stated is None else str(stated).lower()


def cxi(file: HdfFile) -> Found | None:
    """Understand CXI (Maia, Nat. Methods 9, 854, 2012) and NXcxi_ptycho: SI units where none are stated."""
    entry = next((name for name in file.groups() if f"{name}/instrument_1" in file), None)
    if entry is None or not ("cxi_version" in file or entry == "entry_1"):
        return None
    source, detector = f"{entry}/instrument_1/source_1", f"{entry}/instrument_1/detector_1"
    beam, data = f"{entry}/instrument_1/beam_1", f"{entry}/data_1"
    joule = ENERGIES["j"]
    energy = _energy(file, file.first(f"{source}/energy", f"{beam}/energy"), joule)
    found = Found(
        "CXI",
        file.first(f"{data}/data", f"{detector}/data"),
        energy_ev=energy or _energy(file, file.first(f"{beam}/incident_energy"), joule),
        distance_m=_length(file, file.first(f"{detector}/distance")),
        detector_pixel_m=_square(
            file,
            detector,
            *(_length(file, file.first(f"{detector}/{axis}_pixel_size")) for axis in "xy"),
        ),
    )
    places = (f"{entry}/sample_1/geometry_1/translation", f"{data}/translation", f"{detector}/translation")
    if name := file.first(*places):
        # (x, y, z) of each frame.
        found.positions_m = _positions(file, name, axes=3)[:, [1, 0]] * unit_of(file, name, LENGTHS, 1.0)
    if name := file.first(f"{source}/probe", f"{source}/illumination", f"{detector}/probe"):
        found.arrays[rules.PROBE] = _modes(file, name)
    if (ours := f"{entry}/ptychodus") in file and (name := file.first(f"{entry}/image_2/data")):
        # What ptychodus adds to the standard, which does not say where an object lies.
        found.arrays[rules.OBJECT] = _images(file, name)
        found.object_pixel_m = file.number(file.first(f"{ours}/object_pixel_width_m"))
        centre = [file.number(file.first(f"{ours}/object_center_{axis}_m")) or 0.0 for axis in "yx"]
        found.object_centre_m = np.array(centre)
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
    found = Found(
        "ptyd",
        "chunks/0/data",
        energy_ev=_energy(file, file.first("meta/energy"), 1e3),
        distance_m=_length(file, file.first("meta/distance")),
        detector_pixel_m=_side(file, "meta/psize"),
    )
    if name := file.first("chunks/0/positions"):
        found.positions_m = _positions(file, name)
    for name in ("chunks/0/weights", "meta/weight2d"):
        if name in file and np.prod(file.header(name)[0]):
            found.arrays[rules.MASK] = file.load(name) > 0
            break
    return found


def ptyr(file: HdfFile) -> Found | None:
    """Understand a reconstruction of ptypy (``Ptycho.save_run``), which has no frames: lengths in metres.

    A position is at (position - origin) / pixel of the object's pixels, in the middle of its window.
    """
    if not file.groups("content/obj"):
        return None
    scans = file.groups("content/obj")
    held = f"content/obj/{scans[0]}", f"content/probe/{scans[0]}", f"content/positions/{scans[0]}"
    if len(scans) > 1 or not (f"{held[0]}/data" in file and f"{held[1]}/data" in file and held[2] in file):
        problem = f"is a reconstruction of ptypy with {', '.join(scans)}"
        raise StudyError(file.where, problem, "it must have one object, its probe and its positions")
    obj, probe = _images(file, f"{held[0]}/data"), _images(file, f"{held[1]}/data")
    pixel, origin = (pairs(file, f"{held[0]}/{name}").ravel()[:2] for name in ("_psize", "_origin"))
    positions = _positions(file, held[2])
    # One view of the object for each pair of modes at a position.
    views = int((positions != positions[0]).any(axis=1).argmax()) or len(positions)
    if len(positions) % views == 0:
        repeated = positions.reshape(-1, views, 2)
        positions = repeated[:, 0] if (repeated == repeated[:, :1]).all() else positions
    if len(pixel) < 2 or len(origin) < 2 or not (pixel > 0).all():
        raise StudyError(file.where, f"{held[0]}: _psize is {pixel} and _origin {origin}", "(y, x), metres")
    _square(file, f"{held[0]}/_psize", float(pixel[1]), float(pixel[0]))
    return Found(
        "ptyr",
        None,
        positions_px=(positions - origin) / pixel,
        object_pixel_m=float(pixel[0]),
        arrays={rules.PROBE: probe, rules.OBJECT: obj},
    )


def ptychodus(file: HdfFile) -> Found | None:
    """Understand a product of ptychodus (``ptychodus.api.io``), with its patterns in the same file if any."""
    if "probe_position_x_m" not in file or "probe" not in file:
        return None
    sides = (_number(file, "object", f"pixel_{name}_m") for name in ("width", "height"))
    centre = [_number(file, "object", f"center_{axis}_m") or 0.0 for axis in "yx"]
    return Found(
        "ptychodus",
        file.first("patterns", "dp", "diffraction"),
        positions_m=pairs(file, "probe_position_y_m", "probe_position_x_m"),
        energy_ev=_number(file, "/", "photon_energy_eV", "probe_energy_eV"),
        distance_m=_number(file, "/", "detector_object_distance_m"),
        object_pixel_m=_square(file, "object", *sides),
        arrays={rules.PROBE: _modes(file, "probe"), rules.OBJECT: _images(file, "object")},
        object_centre_m=np.array(centre, np.float64),
    )


def ptychoshelves(file: HdfFile) -> Found | None:
    """Understand frames for PtychoShelves (``dp`` with ``ppX``, ``ppY``), or a result of it (MATLAB v7.3)."""
    if file.first("dp") and file.first("ppX") and file.first("ppY"):
        found = Found("PtychoShelves", "dp")
        found.positions_m = pairs(file, "ppY", "ppX")
    elif file.first("probe") and file.first("outputs/probe_positions"):
        # MATLAB stores the first axis last: (2, frame) there is (frame, 2), x first, from pixel 1.
        rows = file.header("outputs/probe_positions")[0]
        positions = _positions(file, "outputs/probe_positions", axes=rows[-1] if len(rows) == 2 else 2)
        if len(positions) != 2:
            problem = f"outputs/probe_positions has shape {rows}"
            raise StudyError(file.where, problem, "MATLAB's (frame, 2) is (2, frame) here")
        found = Found("PtychoShelves", file.first("dp"))
        found.positions_px = positions[::-1].T
        found.arrays[rules.PROBE] = np.swapaxes(_images(file, "probe"), -1, -2)
    else:
        return None
    found.object_pixel_m = _side(file, "p/dx_spec")
    # MATLAB's save names the class; programs that prepare frames for it write (frame, y, x) without.
    found.transposed = file.attribute("dp", "MATLAB_class") is not None
    return found


def emd(file: HdfFile) -> Found | None:
    """Understand a data cube of py4DSTEM: a raster of frames, with steps in both planes."""
    name = next((each for each in file.names() if each.endswith("/data") and file.axes(each) == 4), None)
    if name is None:
        return None
    group = name.removesuffix("/data")
    found, (rows, columns, side, _) = Found("EMD", name), file.header(name)[0]
    steps = [
        _step(file, f"{group}/dim{axis}", units) for axis, units in enumerate((LENGTHS, LENGTHS, PER_METRE))
    ]
    if steps[0] and steps[1]:
        lines = np.indices((rows, columns)).reshape(2, -1).T
        found.positions_m = lines * np.array(steps[:2], np.float64)
    if steps[2]:
        found.object_pixel_m = 1 / (side * steps[2])
    return found


def _step(file: HdfFile, name: str, units: dict[str, float]) -> float | None:
    """Return the step along an axis, of which a file holds two values or all; None without a unit."""
    known = file.load(name).astype(np.float64).ravel() if name in file else np.zeros(0)
    unit = units.get(stated_unit(file, name))
    return None if unit is None or len(known) < 2 else float(known[1] - known[0]) * unit


FORMATS: tuple[Callable[[HdfFile], Found | None], ...] = (cxi, ptyd, ptyr, ptychodus, ptychoshelves, emd)
