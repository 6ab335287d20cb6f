"""Arrays larger than memory: indexing reads rows, choosing rows reads nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CHUNK = 1024
"""Rows that are read at a time: 6 MB of landmarks."""


class Rows:
    """Chosen rows of arrays that stay where they are; `rows[...]` gives an ndarray, as of any array.

    arrays: one behind the other, numpy's own or anything with `shape`, `dtype` and `array[row numbers]`.
    Where one has more points (axis 1) than another, with and without irises, those that all have are read.
    """

    def __init__(self, arrays: Sequence, index: np.ndarray | None = None):
        self._arrays = list(arrays)
        self._start = np.cumsum([0, *(len(array) for array in arrays)])
        self._index = np.arange(self._start[-1]) if index is None else index
        row = arrays[0].shape[1:]
        self.shape = len(self._index), min(array.shape[1] for array in arrays), *row[1:]
        self.ndim, self.dtype = len(self.shape), arrays[0].dtype

    def __len__(self) -> int:
        return len(self._index)

    def choose(self, rows) -> "Rows":
        """Return the rows that a slice, mask or array of numbers names, without reading them."""
        return Rows(self._arrays, self._index[rows])

    def __getitem__(self, key) -> np.ndarray:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if rows is Ellipsis:
            rows, rest = slice(None), [Ellipsis, *rest]
        index = self._index[rows]
        if index.ndim == 0:
            return self._read(index[None])[(0, *rest)]
        if not rest:
            return self._read(index)
        starts = range(0, max(1, len(index)), CHUNK)
        return np.concatenate([self._read(index[start : start + CHUNK])[:, *rest] for start in starts])

    def _read(self, index: np.ndarray) -> np.ndarray:
        values = np.empty((len(index), *self.shape[1:]), self.dtype)
        number = np.searchsorted(self._start, index, "right") - 1
        for one in np.unique(number):
            of_one = number == one
            values[of_one] = self._arrays[one][index[of_one] - self._start[one]][:, : self.shape[1]]
        return values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


def choose(values: Rows | np.ndarray, rows) -> Rows | np.ndarray:
    """Return chosen rows; those of an array that stays on disk stay there."""
    return values.choose(rows) if isinstance(values, Rows) else values[rows]


@dataclass(frozen=True)
class FileArray:
    """An array in a file of its own, mapped only while rows are read: what stays mapped counts as memory."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.array(np.memmap(self.path, self.dtype, "r", shape=self.shape)[rows])


def store(path: Path, chunks: Iterable[np.ndarray]) -> Rows:
    """Write arrays of one type and row shape to a new file, one after the other; return their rows."""
    count = 0
    with path.open("wb") as file:
        for chunk in chunks:
            chunk.tofile(file)
            count += len(chunk)
    return Rows([FileArray(path, (count, *chunk.shape[1:]), chunk.dtype)])
