"""Stitch group canvases into one object: shared phases first, then a weighted mean.

A far field does not tell the phase of its object, so every canvas carries an unknown
constant phase. Overlapping canvases tell their difference, and the phases that fit all
differences best follow from the leading eigenvector of the matrix of overlaps
(A. Singer, Appl. Comput. Harmon. Anal. 30, 20, 2011).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components  # pyright: ignore[reportMissingTypeStubs]
from scipy.sparse.linalg import eigsh  # pyright: ignore[reportMissingTypeStubs]
from scipy.spatial import KDTree

NEIGHBOURS = 8
"""Canvases whose phase is compared with each canvas's."""
PLACES_PER_SIDE = 4
"""Canvases whose origins share a square of this part of their side are at one place."""
DENSE_LIMIT = 32
"""Components with fewer canvases are solved by the dense eigensolver."""

Complex = NDArray[np.complexfloating]


class Stitcher:
    """Collect canvases on disk and merge them on the object's grid, in bounded memory.

    Canvases may have several layers, images of the same piece of the object. Phases are
    found from the last layer and serve all.

    Parameters
    ----------
    origins_px : (canvas, 2) int, object pixels
        Object pixel (y, x) of each canvas's pixel [0, 0].
    canvas_side : int, pixels
    layers : int

    Examples
    --------
    >>> phases = np.array([0.3, 1.2])[:, None, None]
    >>> with Stitcher(np.array([[0, 0], [0, 2]]), 4) as stitcher:
    ...     stitcher.add([np.ones((2, 4, 4)) * np.exp(1j * phases)], np.ones((2, 4, 4)))
    ...     stitched = stitcher.merge((4, 6))
    >>> bool(np.allclose(stitched, 1))
    True
    """

    def __init__(self, origins_px: NDArray[np.integer], canvas_side: int, layers: int = 1) -> None:
        self._origins = origins_px.astype(np.int64)
        self._side = canvas_side
        self._filled = 0
        shape = (len(origins_px), canvas_side, canvas_side)
        self._folder = tempfile.TemporaryDirectory(prefix="stitch-")
        self._layers = [
            np.memmap(f"{self._folder.name}/layer{layer}", np.complex64, "w+", shape=shape)
            for layer in range(layers)
        ]
        self._weights = np.memmap(f"{self._folder.name}/weights", np.float32, "w+", shape=shape)
        self._sums = np.zeros(len(origins_px), np.complex128)

    def __enter__(self) -> Stitcher:
        return self

    def __exit__(self, *_: object) -> None:
        del self._layers, self._weights
        self._folder.cleanup()

    def add(self, layers: Sequence[Complex], illumination: NDArray[np.floating]) -> None:
        """Append canvases in the order of the origins.

        Parameters
        ----------
        layers : sequence of (canvas, y, x) complex
        illumination : (canvas, y, x) float
            Any unit that is the same for all canvases.
        """
        rows = slice(self._filled, self._filled + len(illumination))
        for stored, canvases in zip(self._layers, layers, strict=True):
            stored[rows] = canvases
        self._weights[rows] = illumination
        self._sums[rows] = np.sum(np.square(illumination, dtype=np.float64) * layers[-1], axis=(1, 2))
        self._filled = rows.stop

    def merge(self, shape: tuple[int, int]) -> NDArray[np.complex64]:
        """Return every layer on a grid of ``shape``, (layer, y, x); one where no canvas lies.

        Canvases count by their squared illumination. The mean phase is zero; parts that
        no overlap connects each have mean phase zero.
        """
        if self._filled != len(self._origins):
            raise RuntimeError(f"{self._filled} of {len(self._origins)} canvases were added")
        factors = synchronise(self._overlaps(), self._sums)
        numerator = np.zeros((len(self._layers), *shape), np.complex128)
        weight = np.zeros(shape)
        for index, factor in enumerate(factors):
            here, there = self._clip(index, shape)
            squared = np.square(self._weights[index][here], dtype=np.float64)
            weight[there] += squared
            squared = squared * np.conj(factor)
            for total, layer in zip(numerator, self._layers, strict=True):
                total[there] += squared * layer[index][here]
        merged = np.ones(numerator.shape, np.complex64)
        np.divide(numerator, weight, out=merged, where=weight > 0, casting="same_kind")
        return merged

    def _clip(self, index: int, shape: tuple[int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return the part of a canvas that lies on the grid, in both coordinates."""
        start = self._origins[index]
        low = np.maximum(start, 0)
        high = np.maximum(np.minimum(start + self._side, shape), low)
        here = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
        return here, tuple(slice(a, b) for a, b in zip(low, high, strict=True))

    def _overlaps(self) -> sp.csr_array:
        """Return the Hermitian matrix of weighted inner products of neighbouring canvases."""
        count = len(self._origins)
        pairs = _pairs_to_compare(self._origins, self._side)
        products = np.array([self._inner_product(i, j) for i, j in pairs], np.complex128)
        upper = sp.coo_array((products, (pairs[:, 0], pairs[:, 1])), shape=(count, count)).tocsr()
        return sp.csr_array(upper + upper.conj().T)

    def _inner_product(self, i: int, j: int) -> complex:
        offset = self._origins[j] - self._origins[i]
        if np.any(np.abs(offset) >= self._side):
            return 0j
        here = tuple(slice(max(d, 0), self._side + min(d, 0)) for d in offset)
        there = tuple(slice(max(-d, 0), self._side + min(-d, 0)) for d in offset)
        weights = self._weights[i][here] * self._weights[j][there]
        canvases = self._layers[-1]
        return complex(np.sum(weights * canvases[i][here] * canvases[j][there].conj()))


def _pairs_to_compare(origins_px: NDArray[np.int64], canvas_side: int) -> NDArray[np.int64]:
    """Return index pairs (i, j), i < j, of the canvases whose phases are compared.

    Each canvas is compared with its nearest ones. Where many groups share a place these
    are all of the same place, so that besides one canvas of each place is compared with
    the others there and with those of the nearest places.
    """
    everyone = np.arange(len(origins_px))
    _, heads, place = np.unique(
        origins_px // max(1, canvas_side // PLACES_PER_SIDE), axis=0, return_index=True, return_inverse=True
    )
    heads = heads.astype(np.int64)
    members = np.stack([everyone, heads[place.ravel()]], axis=1)
    pairs = np.concatenate([_nearest(origins_px, everyone), _nearest(origins_px, heads), members])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def _nearest(origins_px: NDArray[np.int64], canvases: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pair each of some canvases with the nearest of them, itself included."""
    chosen = origins_px[canvases]
    wanted = min(NEIGHBOURS + 1, len(canvases))
    found = KDTree(chosen).query(chosen, wanted)[1].reshape(len(canvases), -1)
    return np.stack([np.repeat(canvases, found.shape[1]), canvases[found.ravel()]], axis=1)


def synchronise(overlaps: sp.csr_array, sums: NDArray[np.complexfloating]) -> NDArray[np.complex128]:
    """Return the unit phase factors that agree best with all pairwise differences.

    Parameters
    ----------
    overlaps : (canvas, canvas) Hermitian sparse
        Entry (i, j) has the phase of canvas i less that of canvas j.
    sums : (canvas,) complex
        Weighted sum of each canvas; the sum over each connected part gets phase zero.

    Returns
    -------
    (canvas,) complex
        Modulus one; multiply canvas i by the conjugate of entry i.
    """
    strength = np.asarray(abs(overlaps).sum(axis=1)).ravel()
    scale = 1 / np.sqrt(np.where(strength > 0, strength, 1))
    normalised = sp.csr_array(overlaps.multiply(scale[:, None]).multiply(scale[None, :]))
    factors = np.ones(len(strength), np.complex128)
    parts, label = connected_components(abs(overlaps), directed=False)
    for part in range(parts):
        members = np.flatnonzero(label == part)
        block = normalised[members][:, members]
        if len(members) < DENSE_LIMIT:
            vector = np.linalg.eigh(block.toarray())[1][:, -1]
        else:
            vector = eigsh(block, k=1, which="LA", v0=np.ones(len(members)))[1][:, 0]
        aligned = _unit(vector)
        total = np.conj(aligned) @ sums[members]
        factors[members] = aligned * _unit(np.array([total]))
    return factors


def _unit(values: Complex) -> Complex:
    """Return values of modulus one with the phases of ``values``; one for zero."""
    size = np.abs(values)
    return np.where(size > 0, values / np.where(size > 0, size, 1), 1)
