"""Readings -> CSV or JSON lines: a row for each face of a frame, on disk as soon as the frame is done."""

import contextlib
import csv
import json
import math
import os
from pathlib import Path

from ..config import UserError, relative

COLUMNS = ("source", "frame", "timestamp_ms", "face", "x", "y", "width", "height", "emotion", "confidence")
"""Of each row; the probabilities of the model's classes follow, each under its name."""
SUFFIXES = (".csv", ".jsonl")


def check_name(path: Path) -> None:
    """Raise UserError unless the suffix names a format of ours."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is not a name for results; end it in {' or '.join(SUFFIXES)}")


def readable_name(name: str, table: bool = False) -> str:
    """Return a path as text that is always valid: bytes that are no UTF-8 become `\\xff`.

    In a table, a relative path that a spreadsheet would take for a formula gets `./` before it, and is still
    the path.
    """
    name = os.fsencode(name).decode("utf-8", "backslashreplace")
    return f"./{name}" if table and name.startswith(tuple("=+-@\t\r")) else name


class ResultWriter:
    """Writes readings to a `.csv` or `.jsonl` file; a context manager.

    Boxes are whole pixels of the frame, cut at its edges; a frame without a face gives one row with those
    fields empty (null in JSON lines). Every row is handed to the system at once, so stopping the program
    loses none.
    """

    def __init__(self, path: Path, classes: tuple[str, ...]):
        check_name(path)
        self.path = path
        self._columns = (*COLUMNS, *classes)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"can't write {relative(path)}: {error.strerror}; choose another place"
            ) from error
        self._table = path.suffix.lower() == ".csv"
        if self._table:
            self._write_line(self._columns)

    def write(self, source: str, frame: int, timestamp_ms: int, readings: list) -> None:
        """Add the rows of a frame and its `smoothing.FaceResult`s; raises UserError if the disk refuses."""
        rows = [_row(reading) for reading in readings] or [(None,) * (len(self._columns) - 3)]
        name = readable_name(source, self._table)
        try:
            for row in rows:
                row = (name, frame, timestamp_ms, *row)
                if self._table:
                    self._write_line([f"{value:.5f}" if isinstance(value, float) else value for value in row])
                else:
                    self._file.write(json.dumps(dict(zip(self._columns, row)), allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"can't write {relative(self.path)}: {error.strerror}; free space or choose another place"
            ) from error

    def _write_line(self, values) -> None:
        odd = "\r" in values[0]  # which csv does not quote by itself
        quoting = csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
        csv.writer(self._file, lineterminator="\n", quoting=quoting).writerow(values)

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):  # what a full disk refuses at the end was reported by write()
            self._file.close()


def _row(reading) -> tuple:
    """Return the fields of a reading, in the order of the columns; what is no number is left empty."""
    numbers = [float(value) for value in (reading.confidence, *reading.probabilities)]
    numbers = [round(value, 5) if math.isfinite(value) else None for value in numbers]
    return reading.face, *reading.box, reading.emotion, *numbers
