"""Readings -> CSV or JSON lines: a row for each face of a frame, on disk as soon as the frame is done."""

import contextlib
import csv
import json
from pathlib import Path

from utils.config import UserError, relative

COLUMNS = ("source", "frame", "timestamp_ms", "face", "x", "y", "width", "height", "emotion", "confidence")
"""Of each row; the probabilities of the model's classes follow, each under its name."""
SUFFIXES = (".csv", ".jsonl")


def check_name(path: Path) -> None:
    """Raise UserError unless the suffix names a format of ours."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is not a name for results; end it in {' or '.join(SUFFIXES)}")


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
            self._file = path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise UserError(
                f"can't write {relative(path)}: {error.strerror}; choose another place"
            ) from error
        self._csv = csv.writer(self._file, lineterminator="\n") if path.suffix.lower() == ".csv" else None
        if self._csv:
            self._csv.writerow(self._columns)

    def write(self, source: str, frame: int, timestamp_ms: int, readings: list) -> None:
        """Add the rows of a frame and its `smoothing.Reading`s; raises UserError if the disk refuses."""
        rows = [self._row(reading) for reading in readings] or [(None,) * (len(self._columns) - 3)]
        try:
            for row in rows:
                row = (source, frame, timestamp_ms, *row)
                if self._csv:
                    self._csv.writerow(
                        [f"{value:.5f}" if isinstance(value, float) else value for value in row]
                    )
                else:
                    self._file.write(json.dumps(dict(zip(self._columns, row))) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"can't write {relative(self.path)}: {error.strerror}; free space or choose another place"
            ) from error

    def _row(self, reading) -> tuple:
        probabilities = [round(value, 5) for value in reading.probabilities.tolist()]
        return reading.face, *reading.box, reading.emotion, round(reading.confidence, 5), *probabilities

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError):  # what a full disk refuses at the end was reported by write()
            self._file.close()
