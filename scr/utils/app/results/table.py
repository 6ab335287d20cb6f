"""Rows as CSV or JSON lines: those of `--output`, one for each face and frame, and of `--summary`."""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config import UserError, relative
from ...faces.features import BLENDSHAPE_NAMES
from ...faces.pose import POSE
from ..pipeline import FaceResult

COLUMNS = ("source", "frame", "timestamp_ms", "face", "x", "y", "width", "height", "emotion", "confidence")
"""Of each row; the probabilities of the model's classes follow, each under its name."""
MORE_COLUMNS = {"pose": POSE, "blendshapes": BLENDSHAPE_NAMES}
"""Groups of columns that may be asked for, after those."""
SUFFIXES = (".csv", ".jsonl")
STDOUT = Path("-")


@dataclass(frozen=True)
class TableFormat:
    """How a CSV file is written; `append`: after the rows that it has. UserError if ambiguous."""

    delimiter: str = ","
    decimal: str = "."
    append: bool = False

    def __post_init__(self):
        if self.delimiter == self.decimal:
            raise UserError("commas between columns and in numbers can't be told apart; add: --delimiter ';'")


PLAIN = TableFormat()


class Table:
    """Writes rows to a `.csv` or `.jsonl` file, or as CSV to stdout; a context manager.

    None is an empty field (null in JSON lines), and numbers have as many `decimals`. Every row is handed to
    the system at once, so stopping the program loses none. A new CSV file begins with a byte order mark where
    the columns or `names`, those of the sources, go beyond ASCII: Excel would misread them. Raises UserError
    if it can't be written.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        names: Sequence[str] = (),
        style: TableFormat = PLAIN,
        decimals: int = 5,
    ):
        self.path, self._style, self._decimals = path, style, decimals
        self._columns = tuple(columns)
        self._is_csv = path.suffix.lower() != ".jsonl"
        with self._errors_explained():
            self._file = sys.stdout if path == STDOUT else self._open()
            self._writer = csv.writer(self._file, lineterminator="\n", delimiter=style.delimiter)
            if self._is_csv and (path == STDOUT or self._file.tell() == 0):
                if path != STDOUT and not "".join((*columns, *names)).isascii():
                    self._file.write("\ufeff")
                self._writer.writerow(self._columns)

    def _open(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._style.append and self._is_csv and self.path.exists() and self.path.stat().st_size:
            with self.path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                header = next(csv.reader(file, delimiter=self._style.delimiter), [])
            if tuple(header) != self._columns:
                raise UserError(f"{relative(self.path)} has other columns than this run; choose another name")
        return self.path.open("a" if self._style.append else "w", newline="", encoding="utf-8")

    @contextlib.contextmanager
    def _errors_explained(self):
        try:
            yield
        except OSError as error:
            if self.path == STDOUT:
                raise
            problem = f"can't write {relative(self.path)}: {error.strerror}"
            raise UserError(f"{problem}; free space or choose another place") from error

    def write_row(self, source: str, *values) -> None:
        """Add a row: the source's name, and values, of which the last ones may be missing.

        Raises UserError if the disk refuses.
        """
        values = [round(one, self._decimals) if isinstance(one, float) else one for one in values]
        values += [None] * (len(self._columns) - 1 - len(values))
        row = (readable_name(source, self._is_csv), *values)
        with self._errors_explained():
            if self._is_csv:
                self._writer.writerow(map(self._as_text, row))
            else:
                self._file.write(json.dumps(dict(zip(self._columns, row))) + "\n")
            self._file.flush()

    def _as_text(self, value):
        if not isinstance(value, float):
            return value
        return f"{value:.{self._decimals}f}".replace(".", self._style.decimal)

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_) -> None:
        if self.path != STDOUT:
            with contextlib.suppress(OSError):  # what a full disk refuses at the end was reported by write()
                self._file.close()


def readable_name(name: str, table: bool = False) -> str:
    """Return a path as text that is always valid: bytes that are no UTF-8 become `\\xff`.

    In a table, a relative path that a spreadsheet would take for a formula gets `./` before it, and is still
    the path.
    """
    name = os.fsencode(name).decode("utf-8", "backslashreplace")
    if not table:
        return name
    return f"{'./' if name.startswith(tuple('=+-@')) else ''}{name}".replace("\r", "\\r")


class FaceTable(Table):
    """A table with a row for each face and frame; more: which of `MORE_COLUMNS` it has.

    A frame without a face gives one row whose fields of a face are empty.
    """

    def __init__(
        self,
        path: Path,
        classes: Sequence[str],
        names: Sequence[str] = (),
        style: TableFormat = PLAIN,
        more: Collection[str] = (),
    ):
        self._more = [group for group in MORE_COLUMNS if group in more]
        others = [name for group in self._more for name in MORE_COLUMNS[group]]
        super().__init__(path, (*COLUMNS, *classes, *others), names, style)

    def write(self, source: str, frame: int, timestamp_ms: int, faces: list[FaceResult]) -> None:
        """Add the rows of a frame and its faces; raises UserError if the disk refuses."""
        for fields in [face.to_dict(*self._more).values() for face in faces] or [()]:
            self.write_row(source, frame, timestamp_ms, *fields)
