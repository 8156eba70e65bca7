"""Stitch group canvases into one object: shared phases first, then a weighted mean.

A far field does not tell the phase of its object, so every canvas carries an unknown
constant phase. Overlapping canvases tell their difference, and the phases that fit all
differences best follow from the leading eigenvector of the matrix of overlaps
(A. Singer, Appl. Comput. Harmon. Anal. 30, 20, 2011).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import scipy.sparse as sp  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components  # pyright: ignore[reportMissingTypeStubs]
from scipy.sparse.linalg import lobpcg  # pyright: ignore[reportMissingTypeStubs]
from scipy.spatial import KDTree

from fly64_dose_overlap.arrays import DiskArray, Spool, rows_per_block

NEIGHBOURS = 8
"""Canvases whose phase is compared with each canvas's."""
PLACES_PER_SIDE = 4
"""Canvases whose origins share a square of this part of their side are at one place."""
DENSE_LIMIT = 32
"""Components with fewer canvases are solved by the dense eigensolver."""
EIGENVECTOR_TOLERANCE = 1e-8
"""Largest residual of an eigenvector of length one, whose eigenvalue is about one.

On scans of 25,000 to 100,000 frames phases are then within 1e-5 rad of the exact ones.
"""
MOST_ITERATIONS = 20_000
"""Iterations before that is given up with a warning; 100,000 canvases take some 500."""
CACHED_BYTES = 64 * 2**20
"""Canvases kept in memory while neighbours are compared: those of a few lines of a raster."""

Complex = NDArray[np.complexfloating]


class Stitcher:
    """Collect canvases on disk and merge them on the object's grid.

    Memory depends on the object; a canvas takes some two kilobytes, whatever its side.

    Canvases may have several layers, images of the same piece of the object. Phases are
    found from the last layer and serve all. Origins are the object pixels (y, x) of each
    canvas's pixel [0, 0].

    Examples
    --------
    >>> phases = np.array([0.3, 1.2])[:, None, None]
    >>> stitcher = Stitcher(np.array([[0, 0], [0, 2]]), 4)
    >>> stitcher.add([np.ones((2, 4, 4)) * np.exp(1j * phases)], np.ones((2, 4, 4)))
    >>> stitched = stitcher.merge((4, 6))
    >>> bool(np.allclose(stitched, 1))
    True
    """

    def __init__(self, origins_px: NDArray[np.integer], canvas_side: int, layers: int = 1) -> None:
        self._origins = origins_px.astype(np.int64)
        self._side = canvas_side
        shape = (len(origins_px), canvas_side, canvas_side)
        self._layers = [Spool(shape, np.complex64) for _ in range(layers)]
        self._weights = Spool(shape, np.float32)
        self._sums = np.zeros(len(origins_px), np.complex128)

    def add(self, layers: Sequence[ArrayLike], illumination: ArrayLike) -> None:
        """Append canvases in the order of the origins: complex layers (canvas, y, x), and their illumination.

        The latter is in any unit that is the same for all canvases.
        """
        first = len(self._weights)
        for stored, canvases in zip(self._layers, layers, strict=True):
            stored.append(np.asarray(canvases))
        weights = np.asarray(illumination)
        self._weights.append(weights)
        sums = np.sum(np.square(weights, dtype=np.float64) * np.asarray(layers[-1]), axis=(1, 2))
        self._sums[first : len(self._weights)] = sums

    def merge(self, shape: tuple[int, int]) -> NDArray[np.complex64]:
        """Return every layer on a grid of ``shape``, (layer, y, x); one where no canvas lies.

        Canvases count by their squared illumination. The mean phase is zero; parts that
        no overlap connects each have mean phase zero.
        """
        if len(self._weights) != len(self._origins):
            raise RuntimeError(f"{len(self._weights)} of {len(self._origins)} canvases were added")
        layers, weights = [layer.finish() for layer in self._layers], self._weights.finish()
        factors = synchronise(self._overlaps(layers[-1], weights), self._sums)
        numerator = np.zeros((len(layers), *shape), np.complex64)
        weight = np.zeros(shape, np.float32)
        turns = np.conj(factors).astype(np.complex64)
        for index, (illumination, *canvases) in enumerate(_rows(weights, *layers)):
            here, there = self._clip(index, shape)
            squared = np.square(illumination[here])
            weight[there] += squared
            turned = squared * turns[index]
            for total, canvas in zip(numerator, canvases, strict=True):
                total[there] += turned * canvas[here]
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

    def _overlaps(self, canvases: DiskArray, weights: DiskArray) -> sp.csr_array:
        """Return the Hermitian matrix of weighted inner products of neighbouring canvases."""
        pairs = pairs_to_compare(self._origins, self._side)
        bytes_each = self._side**2 * canvases.dtype.itemsize

        @lru_cache(max(2, CACHED_BYTES // bytes_each))
        def read(index: int) -> Complex:
            return canvases[index] * weights[index]

        def inner_product(i: int, j: int) -> complex:
            offset = self._origins[j] - self._origins[i]
            if np.any(np.abs(offset) >= self._side):
                return 0j
            here = tuple(slice(max(d, 0), self._side + min(d, 0)) for d in offset)
            there = tuple(slice(max(-d, 0), self._side + min(-d, 0)) for d in offset)
            return complex(np.vdot(read(j)[there], read(i)[here]))

        products = [inner_product(i, j) for i, j in pairs.tolist()]
        return overlap_matrix(pairs, np.array(products, np.complex128), len(self._origins))


def _rows(*arrays: DiskArray) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield the rows of several arrays of equal length side by side."""
    rows = rows_per_block(arrays[0].shape, arrays[0].dtype)
    for blocks in zip(*(array.blocks(rows=rows) for array in arrays), strict=True):
        yield from zip(*blocks, strict=True)


def overlap_matrix(pairs: NDArray[np.int64], products: NDArray[np.complex128], canvases: int) -> sp.csr_array:
    """Return the Hermitian matrix of the inner products of pairs (i, j), i < j."""
    upper = sp.coo_array((products, (pairs[:, 0], pairs[:, 1])), shape=(canvases, canvases)).tocsr()
    return sp.csr_array(upper + upper.conj().T)


def pairs_to_compare(origins_px: NDArray[np.int64], canvas_side: int) -> NDArray[np.int64]:
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
    """Return the factors of modulus one that agree best with all pairwise differences, (canvas,).

    Multiply canvas i by the conjugate of entry i. Entry (i, j) of the Hermitian overlaps has the
    phase of canvas i less that of canvas j. Of the weighted sums of canvases, (canvas,), the sum
    over each connected part gets phase zero.
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
            vector = _leading_eigenvector(block)
        aligned = _unit(vector)
        total = np.conj(aligned) @ sums[members]
        factors[members] = aligned * _unit(np.array([total]))
    return factors


def _leading_eigenvector(matrix: sp.csr_array) -> NDArray[np.complex128]:
    """Return the eigenvector of the largest eigenvalue of a Hermitian matrix.

    Canvases begin as the same empty object, so that equal phases are a good start. Slow
    differences come last; the number of iterations goes with the scan's side. Lanczos
    iterations with restarts take seven times as long (100,000 canvases).
    """
    start = np.ones((len(matrix.indptr) - 1, 1), np.complex128)
    found = lobpcg(matrix, start, tol=EIGENVECTOR_TOLERANCE, maxiter=MOST_ITERATIONS)
    return cast(Any, found)[1][:, 0]


def _unit(values: Complex) -> Complex:
    """Return values of modulus one with the phases of ``values``; one for zero."""
    size = np.abs(values)
    return np.where(size > 0, values / np.where(size > 0, size, 1), 1)
