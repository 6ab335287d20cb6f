"""Sets of labelled faces: in memory a column each, on disk an SQLite file (docs/sets.md says why)."""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from ..config import EMOTIONS, UserError, note, relative
from ..faces.crops import CROP_PX
from ..faces.features import ALL_POINTS, BLENDSHAPES, MESH_POINTS
from ..files import atomic_path
from ..folders import list_reasons
from .arrays import CHUNK, Rows, choose
from .classes import check_classes
from .image_folder import VOTES

SUFFIX = ".faces"
MISSED = "label", "source", "path", "split", "reason"
"""What is known of a picture on which no face was found."""
TEXT = "label", "source", "path", "sha256", "split", "subject", "session", "encoding"
KINDS = {
    "width": (np.int32, ()),
    "height": (np.int32, ()),
    "votes": (np.uint8, (VOTES,)),
    "blendshapes": (np.float32, (BLENDSHAPES,)),
}
"""Type and row shape of the small columns that are no text."""


@dataclass
class FaceSet:
    """A set of n faces, column by column, and of m pictures on which none was found.

    landmarks (n, 478 or 468, 3) float32 in image widths; blendshapes (n, 52) float32; label, source, path,
    sha256, encoding, split (`train`, `val`, `test` or empty), subject, session (n,) text, empty where
    unknown; width and height (n,) in pixels; votes (n, 10) in the order of `FERPLUS_COLUMNS`, zero without
    FER+; crop (n, CROP_PX, CROP_PX) uint8 or None. maps: what the backbone of a crop network makes of
    the crops while it is trained; no file holds them. missed (m,): records with the fields `MISSED`.

    Landmarks, crop and maps may be `Rows`, which stay on disk until they are indexed.
    """

    landmarks: np.ndarray | Rows
    label: np.ndarray
    blendshapes: np.ndarray = None
    source: np.ndarray = None
    path: np.ndarray = None
    sha256: np.ndarray = None
    split: np.ndarray = None
    subject: np.ndarray = None
    session: np.ndarray = None
    width: np.ndarray = None
    height: np.ndarray = None
    encoding: np.ndarray = None
    votes: np.ndarray = None
    crop: np.ndarray | Rows | None = None
    maps: np.ndarray | Rows | None = None
    missed: np.ndarray = None

    def __post_init__(self):
        n = len(self.landmarks)
        for name in (*TEXT, *KINDS):
            if getattr(self, name) is None:
                dtype, shape = KINDS.get(name, ("U1", ()))
                setattr(self, name, np.zeros((n, *shape), dtype))
        for name, values in self._columns().items():
            if len(values) != n:
                raise ValueError(f"column {name} has {len(values)} rows, landmarks {n}")
        if self.missed is None:
            self.missed = missed_pictures(*[np.empty(0, "U1")] * len(MISSED))
        self.missed = self.missed.view(np.recarray)

    def _columns(self) -> dict:
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return {name: values for name, values in columns.items() if values is not None}

    def __len__(self) -> int:
        return len(self.landmarks)

    def select(self, rows: np.ndarray | slice, missed: np.ndarray | slice = slice(None)) -> "FaceSet":
        """Return the faces, and the missed pictures, that slices, masks or arrays of numbers name."""
        chosen = {name: choose(values, rows) for name, values in self._columns().items()}
        return FaceSet(**chosen, missed=self.missed[missed])

    def of_classes(self, classes: Sequence[str]) -> "FaceSet":
        """Return the faces, and the missed pictures, whose label is one of `classes`."""
        return self.select(np.isin(self.label, classes), np.isin(self.missed.label, classes))

    def part(self, split: str) -> "FaceSet":
        """Return the faces, and the missed pictures, of one side of the split."""
        return self.select(self.split == split, self.missed.split == split)

    def with_split(self, split: np.ndarray, missed_split: np.ndarray) -> "FaceSet":
        """Return the set with another split of its faces and of its missed pictures."""
        columns = {name: self.missed[name] for name in MISSED} | {"split": missed_split}
        return replace(self, split=split, missed=missed_pictures(**columns))

    def class_index(self, classes: Sequence[str] = EMOTIONS) -> np.ndarray:
        """Return the labels as indices (n,) int64 into `classes`; raises ValueError for any other label."""
        return np.array([tuple(classes).index(name) for name in self.label.tolist()], np.int64)

    def missed_index(self, classes: Sequence[str] = EMOTIONS) -> np.ndarray:
        """Return the labels of the missed pictures as indices (m,) int64 into `classes`."""
        return np.array([tuple(classes).index(name) for name in self.missed.label.tolist()], np.int64)


_COLUMNS = [item.name for item in fields(FaceSet) if item.name != "missed"]


def missed_pictures(label, source, path, split, reason) -> np.recarray:
    """Return the records of pictures without a face, of columns (m,) of text."""
    return np.rec.fromarrays([label, source, path, split, reason], names=",".join(MISSED))


def concatenate(sets: Sequence[FaceSet]) -> FaceSet:
    """Return one set of several; crops and irises are left out if not all of them have them."""
    if len(sets) == 1:
        return sets[0]
    filled = [part._columns() for part in sets if len(part)] or [sets[0]._columns()]
    columns = {}
    for name in filled[0]:
        if all(name in part for part in filled):
            on_disk = name in ("landmarks", "crop", "maps")
            columns[name] = (Rows if on_disk else np.concatenate)([part[name] for part in filled])
    return FaceSet(**columns, missed=np.concatenate([part.missed for part in sets]))


APPLICATION_ID, FORMAT = 0x46414345, 1
"""What SQLite files say about themselves: that this is a set of faces, and of which format."""
PAGE_BYTES = 32_768
"""Five faces' landmarks or two crops, at 10% of waste. With SQLite's own 4,096 the small columns of 450,000
faces take 2.6 s of CPU time to load instead of 1.6."""
_COLUMNS_OF_PICTURE = (
    "id INTEGER PRIMARY KEY, path TEXT, source TEXT, label TEXT, split TEXT, subject TEXT, session TEXT, "
    "votes BLOB, size INTEGER, mtime_ns INTEGER, sha256 TEXT, width INTEGER, height INTEGER, encoding TEXT, "
    "blendshapes BLOB, reason TEXT"  # why there is no face; empty: there is one; NULL: not read yet
)
SCHEMA = f"""
PRAGMA page_size = {PAGE_BYTES};
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE picture ({_COLUMNS_OF_PICTURE});
CREATE TABLE landmarks (id INTEGER PRIMARY KEY, value BLOB);
CREATE TABLE crop (id INTEGER PRIMARY KEY, value BLOB);
COMMIT;
"""
_AGAIN = "make it again: python scr/extract_landmarks.py --images FOLDER"


@contextlib.contextmanager
def open_file(path: Path, write: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the file of a set; to `write`, an empty one is made where there is none.

    Raises UserError if it can't be read or written, is damaged or no set, or another run writes it.
    """
    mode = "rwc" if write else "rw"  # never `ro`: what a killed run has left must be rolled back
    address = f"{path.resolve().as_uri()}?mode={mode}"
    try:
        with contextlib.closing(sqlite3.connect(address, timeout=0, uri=True)) as file:
            if write and not path.stat().st_size:
                file.executescript(SCHEMA)
            marks = [file.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")]
            if marks != [(APPLICATION_ID,), (FORMAT,)]:
                raise UserError(f"{relative(path)} is no set of faces of this version; {_AGAIN}")
            yield file
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise UserError(f"{relative(path)} is being written by another run; wait for its end") from error
        raise UserError(f"can't use {relative(path)}: {error}; free space or choose another place") from error
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        if write and not isinstance(error, sqlite3.Error):
            raise
        raise UserError(f"{relative(path)} is damaged or no set of faces ({error}); {_AGAIN}") from error


def insert(file: sqlite3.Connection, table: str, columns: dict) -> None:
    """Insert rows into a table, given column by column."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    file.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", zip(*columns.values()))


def update(file: sqlite3.Connection, number: int, columns: dict) -> None:
    """Write columns of one picture."""
    names = ", ".join(f"{name} = ?" for name in columns)
    file.execute(f"UPDATE picture SET {names} WHERE id = ?", (*columns.values(), number))


def save_face_set(path: Path, data: FaceSet) -> None:
    """Write a set, atomically; equal sets give equal bytes."""
    with atomic_path(path) as partial, open_file(partial, write=True) as file:
        file.execute("PRAGMA synchronous = OFF")  # atomic_path sees to it
        for start in range(0, len(data), CHUNK):
            part = data.select(slice(start, start + CHUNK))
            columns = {"id": range(start, start + len(part)), "reason": [""] * len(part)}
            for name in (*TEXT, *KINDS):
                values = getattr(part, name)
                columns[name] = values.tolist() if values.ndim == 1 else map(np.ndarray.tobytes, values)
            insert(file, "picture", columns)
            for name in ("landmarks", "crop"):
                if (values := getattr(part, name)) is not None:
                    rows = {"id": columns["id"], "value": map(np.ndarray.tobytes, values[:])}
                    insert(file, name, rows)
        insert(file, "picture", {name: data.missed[name].tolist() for name in MISSED})
        file.commit()


def load_face_set(path: Path) -> FaceSet:
    """Return the set in a `.faces` (all columns) or `.txt` (468 points and label) file.

    Landmarks and crops stay in the file until they are indexed. Raises UserError if the file is missing, is
    none, or holds no face.
    """
    if not path.is_file():
        raise UserError(f"no set of faces at {relative(path)}; {_AGAIN.replace('it again', 'one')}")
    if path.suffix.lower() == ".npz":  # as earlier versions wrote
        raise UserError(f"{relative(path)} is a set of an earlier version, which is read no more; {_AGAIN}")
    data = _read_txt(path) if path.suffix.lower() == ".txt" else _read_file(path)
    if len(data) == 0:
        reasons = list_reasons(Counter(data.missed.reason.tolist())) or "no picture"
        raise UserError(f"{relative(path)} holds no face ({reasons}); check the pictures it was made from")
    return data


def _read_file(path: Path) -> FaceSet:
    with open_file(path) as file:
        waiting = file.execute("SELECT COUNT(*) FROM picture WHERE reason IS NULL").fetchone()[0]
        columns = _read_columns(file, (*TEXT, *KINDS, "id"), "reason = ''")
        missed = _read_columns(file, MISSED, "reason != ''")
        number, inode = columns.pop("id"), path.stat().st_ino
        found = file.execute("SELECT LENGTH(value) / 12 FROM landmarks").fetchone()
        shape = len(number), found[0] if found else ALL_POINTS, 3
        if shape[1] not in (MESH_POINTS, ALL_POINTS) or not np.isfinite(columns["blendshapes"]).all():
            raise ValueError("faces of other points or blendshapes")
        columns["landmarks"] = Rows([_Stored(path, "landmarks", number, shape, np.dtype(np.float32), inode)])
        if file.execute("SELECT id FROM crop").fetchone():
            shape = len(number), CROP_PX, CROP_PX
            columns["crop"] = Rows([_Stored(path, "crop", number, shape, np.dtype(np.uint8), inode)])
        data = FaceSet(**columns, missed=missed_pictures(**missed))
    if waiting:
        note(f"{relative(path)}: {waiting} pictures are not read yet; run the command that makes it again")
    return data


def _read_columns(file: sqlite3.Connection, names: Sequence[str], condition: str) -> dict:
    """Return columns of the pictures that meet a condition."""
    cursor = file.execute(f"SELECT {', '.join(names)} FROM picture WHERE {condition} ORDER BY id")
    parts = [[_as_array(name, [])] for name in names]
    while rows := cursor.fetchmany(CHUNK):  # numbers and text take some times more memory in Python
        for name, part, values in zip(names, parts, zip(*rows)):
            part.append(_as_array(name, values))
    return {name: np.concatenate(part) for name, part in zip(names, parts)}


def _as_array(name: str, values: Sequence) -> np.ndarray:
    dtype, shape = KINDS.get(name, (np.int64 if name == "id" else str, ()))
    return np.frombuffer(b"".join(values), dtype).reshape(-1, *shape) if shape else np.array(values, dtype)


@dataclass(frozen=True)
class _Stored:
    """The landmarks or crops of a set's file, an array that is read by rows.

    The file is open only while rows are read: no handle is kept, and any thread may read."""

    path: Path
    table: str
    number: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype
    inode: int

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        query = f"SELECT value FROM {self.table} WHERE id = ?"
        with open_file(self.path) as file:
            found = [file.execute(query, (number,)).fetchone() for number in self.number[rows].tolist()]
            if None in found or self.path.stat().st_ino != self.inode:
                raise UserError(f"{relative(self.path)} was changed while it was in use; run this again")
            for place, (value,) in enumerate(found):
                values[place] = np.frombuffer(value, self.dtype).reshape(self.shape[1:])
            if self.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"{self.table} that are no numbers")
        return values


_TXT_CLASSES = "# classes: "
"""Begins the first line of a `.txt` whose classes are not `EMOTIONS`; `numpy.loadtxt` skips it."""


def save_txt(path: Path, data: FaceSet, classes: Sequence[str] = EMOTIONS) -> None:
    """Write the published format, atomically: a face a line, 1404 coordinates and the index of its class.

    Nine significant digits bring a float32 back to the bit. Other classes than `EMOTIONS` are named in the
    first line.
    """
    labels = iter(data.class_index(classes).tolist())
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        if tuple(classes) != EMOTIONS:
            file.write(f"{_TXT_CLASSES}{', '.join(classes)}\n")
        line = "%.9g " * (MESH_POINTS * 3) + "%d\n"
        for start in range(0, len(data), CHUNK):
            chunk = data.landmarks[start : start + CHUNK, :MESH_POINTS]
            for face in chunk.reshape(len(chunk), -1):
                file.write(line % (*face.tolist(), next(labels)))


def _read_txt(path: Path) -> FaceSet:
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline().strip()
        table = np.loadtxt(path, dtype=np.float32, ndmin=2, encoding="utf-8")
        if table.shape[1] != MESH_POINTS * 3 + 1:
            raise ValueError(f"{table.shape[1]} columns, expected {MESH_POINTS * 3 + 1}")
        named = first.startswith(_TXT_CLASSES)
        classes = first.removeprefix(_TXT_CLASSES).split(",") if named else EMOTIONS
        classes = check_classes(classes, relative(path))
        if not (np.isfinite(table).all() and np.isin(table[:, -1], range(len(classes))).all()):
            raise ValueError(
                f"each face is {MESH_POINTS * 3} numbers and a label from 0 to {len(classes) - 1}"
            )
    except (ValueError, OSError) as error:
        raise UserError(f"{relative(path)} is no set of faces ({error}); {_AGAIN}") from error
    label = np.array(classes)[table[:, -1].astype(int)]
    landmarks = table[:, :-1].reshape(-1, MESH_POINTS, 3)
    return FaceSet(landmarks, label, source=np.full(len(table), path.stem))
