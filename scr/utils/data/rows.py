"""Rows of large arrays that stay on disk until they are read: 40,000 faces have half a gigabyte of crops."""

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CHUNK = 1024
"""Rows that are copied at a time."""


class Rows:
    """Chosen rows of arrays of one shape (..., *shape), in order; choosing copies nothing, `read` does."""

    def __init__(self, arrays: Sequence[np.ndarray], index: np.ndarray | None = None):
        self._arrays = list(arrays)
        self._start = np.cumsum([0, *(len(array) for array in arrays)])
        self._index = np.arange(self._start[-1]) if index is None else index

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the rows would have as one array."""
        return len(self), *self._arrays[0].shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """The type of their values."""
        return self._arrays[0].dtype

    def __getitem__(self, rows: np.ndarray | slice) -> "Rows":
        return Rows(self._arrays, self._index[rows])

    def read(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return rows, by index or mask, as an array in memory."""
        index = self._index[rows]
        values = np.empty((len(index), *self.shape[1:]), self.dtype)
        number = np.searchsorted(self._start, index, "right") - 1
        for one in np.unique(number):
            of_one = number == one
            values[of_one] = self._arrays[one][index[of_one] - self._start[one]]
        return values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.read().astype(dtype or self.dtype, copy=False)

    def chunks(self):
        """Yield all rows, some at a time."""
        for start in range(0, len(self), CHUNK):
            yield self.read(slice(start, start + CHUNK))

    def write(self, file) -> None:
        """Write them to an open file as one array in numpy's format."""
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, header | {"shape": self.shape})
        for chunk in self.chunks():
            file.write(chunk.tobytes())


def join(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several, one after the other; all must have rows of one shape."""
    arrays = [array for part in parts for array in part._arrays]
    starts = np.cumsum([0, *(part._start[-1] for part in parts)])
    return Rows(arrays, np.concatenate([part._index + start for part, start in zip(parts, starts)]))


def map_member(path: Path, name: str) -> np.ndarray:
    """Return an array of an uncompressed `.npz`, mapped into memory: its pages are read when needed."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    with path.open("rb") as file:
        file.seek(
            member.header_offset + 26
        )  # behind the fixed part of a local header: lengths of name and extra
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"column {name} is of an unknown format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    return np.memmap(path, dtype, "r", start, shape) if np.prod(shape) else np.empty(shape, dtype)
