"""Rows of large arrays that stay on disk until they are read: 450,000 faces have 2.6 GB of landmarks."""

import itertools
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config import UserError, relative

CHUNK = 1024
"""Rows that are read at a time."""
READ_BYTES = 1 << 22


@dataclass(frozen=True)
class StoredArray:
    """An array (n, ...) in a file, opened only while rows are read.

    Thousands of them take no file handle, and no page of them counts as memory of the program. Raises
    ValueError if the file is too short for it, UserError when it has been replaced since.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    stamp: tuple[int, ...] = ()
    points: int | None = None
    """how many of each row's first axis are wanted"""

    def __post_init__(self):
        if self.dtype.hasobject:
            raise ValueError("a column of Python objects")
        if min(self.shape) < 0:
            raise ValueError(f"a column of shape {self.shape}")
        size = self.offset + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if self.path.stat().st_size < size:
            raise ValueError("a column longer than the file")
        object.__setattr__(self, "stamp", self.stamp or self._stamp())

    def _stamp(self) -> tuple[int, ...]:
        now = self.path.stat()
        return now.st_ino, now.st_size, now.st_mtime_ns

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)[:, : self.points]
        if self._stamp() != self.stamp:
            raise UserError(f"{relative(self.path)} was changed while it was in use; run this again")
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows of {relative(self.path)} that it does not have")
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        # Pieces of rows that follow one another. They are read, not mapped into memory: of a mapped file the
        # kernel counts, and keeps, far more pages than were asked for.
        starts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        with self.path.open("rb") as file:
            for first, end in itertools.pairwise(starts):
                file.seek(self.offset + int(rows[first]) * row)
                if file.readinto(values[first:end]) < (end - first) * row:
                    raise UserError(f"{relative(self.path)} ends early; make it again")
        return values[:, : self.points]


class Rows:
    """Chosen rows of arrays of one shape (..., *shape), in order; choosing copies nothing, `read` does.

    It is indexed as an array is: by a slice, mask or array of rows it gives `Rows`, by one number or by more
    than the first axis (`rows[:, 33, :2]`) values.
    """

    def __init__(self, arrays: Sequence[np.ndarray | StoredArray], index: np.ndarray | None = None):
        self._arrays = list(arrays)
        self._start = np.cumsum([0, *(len(array) for array in arrays)])
        self._index = np.arange(self._start[-1]) if index is None else index

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the rows would have as one array."""
        first = self._arrays[0]
        points = getattr(first, "points", None)
        return len(self), *(first.shape[1:] if points is None else (points, *first.shape[2:]))

    @property
    def ndim(self) -> int:
        """The number of axes that the rows would have as one array."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of their values."""
        return self._arrays[0].dtype

    def __getitem__(self, rows) -> "Rows | np.ndarray":
        if isinstance(rows, int | np.integer):
            return self.read([rows])[0]
        if not isinstance(rows, tuple):
            return Rows(self._arrays, self._index[rows])
        rest = slice(None), *rows[1:]
        parts = [np.array(chunk[rest]) for chunk in self[rows[0]].chunks()]
        return np.concatenate(parts) if parts else self.read(slice(0))[rest]

    def read(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return rows, by index or mask, as an array in memory."""
        index = self._index[rows]
        number = np.searchsorted(self._start, index, "right") - 1
        if len(index) and (number == number[0]).all():
            return np.ascontiguousarray(self._arrays[number[0]][index - self._start[number[0]]])
        values = np.empty((len(index), *self.shape[1:]), self.dtype)
        for one in np.unique(number):
            of_one = number == one
            values[of_one] = self._arrays[one][index[of_one] - self._start[one]]
        return values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.read().astype(dtype or self.dtype, copy=False)

    def chunks(self, count: int = CHUNK) -> Iterator[np.ndarray]:
        """Yield all rows, some at a time."""
        for start in range(0, len(self), count):
            yield self.read(slice(start, start + count))

    def first(self, points: int) -> "Rows":
        """Return the same rows with the first `points` of their first axis."""
        if self.shape[1] == points:
            return self
        cut = [
            replace(array, points=points) if isinstance(array, StoredArray) else array[:, :points]
            for array in self._arrays
        ]
        return Rows(cut, self._index)

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


def store(path: Path, chunks: Iterator[np.ndarray]) -> Rows:
    """Write arrays (..., *shape), all of one type, to a new file, one after the other; return their rows."""
    count = 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk.tobytes())
            count += len(chunk)
    return Rows([StoredArray(path, 0, (count, *chunk.shape[1:]), chunk.dtype)])


def check_member(path: Path, name: str) -> None:
    """Raise zipfile.BadZipFile unless an array of an `.npz` has the check sum (CRC-32) that stands in it."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        while file.read(READ_BYTES):
            pass


def map_member(path: Path, name: str) -> StoredArray | np.ndarray:
    """Return an array of an uncompressed `.npz` without reading it, of a compressed one read."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    with path.open("rb") as file:
        # Behind the fixed part of a local header: lengths of name and extra.
        file.seek(member.header_offset + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"column {name} is of an unknown format")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        if by_column or not shape:
            raise ValueError(f"column {name} is of an unknown order or shape")
        return StoredArray(path, file.tell(), shape, dtype)
