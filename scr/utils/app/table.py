"""Where the results of a run go: a table of rows, the annotated pictures and videos, a plot."""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError, relative
from ..video.frames import Frame, Source
from ..video.video_writer import CODECS, Sound, VideoRecorder, write_picture
from .pipeline import FaceResult, PictureResult
from .plot import Plot, check_plot

COLUMNS = ("source", "frame", "timestamp_ms", "face", "x", "y", "width", "height", "emotion", "confidence")
"""Of each row; the probabilities of the model's classes follow, each under its name."""
SUFFIXES = (".csv", ".jsonl")
STDOUT = Path("-")
LONGEST_NAME = 255
"""Bytes, on every usual file system."""
PICTURE_SUFFIXES = tuple(".jpg .png .jpeg .bmp .jpe .tif .tiff .ppm".split())
"""That pictures of any size and colour are written as; WebP and AVIF have limits."""


@dataclass(frozen=True)
class TableFormat:
    """How a CSV file is written; `append`: after the rows that it has. UserError if ambiguous."""

    delimiter: str = ","
    decimal: str = "."
    append: bool = False

    def __post_init__(self):
        if self.delimiter == self.decimal:
            raise UserError("commas between columns and in numbers can't be told apart; add: --delimiter ';'")


class Table:
    """Writes face results to a `.csv` or `.jsonl` file, or as CSV to stdout; a context manager.

    A frame without a face gives one row whose fields of a face are empty (null in JSON lines). Every row is
    handed to the system at once, so stopping the program loses none. A new CSV file begins with a byte order
    mark where class names or `names`, those of the sources, go beyond ASCII: Excel would misread them. Raises
    UserError if it can't be written.
    """

    def __init__(
        self,
        path: Path,
        classes: tuple[str, ...],
        names: Sequence[str] = (),
        style: TableFormat = TableFormat(),
    ):
        self.path, self._style = path, style
        self._columns = (*COLUMNS, *classes)
        self._is_csv = path.suffix.lower() != ".jsonl"
        with self._errors_explained():
            self._file = sys.stdout if path == STDOUT else self._open()
            self._writer = csv.writer(self._file, lineterminator="\n", delimiter=style.delimiter)
            if self._is_csv and (path == STDOUT or self._file.tell() == 0):
                if path != STDOUT and not "".join((*classes, *names)).isascii():
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

    def write(self, source: str, frame: int, timestamp_ms: int, faces: list[FaceResult]) -> None:
        """Add the rows of a frame and its faces; raises UserError if the disk refuses."""
        name = readable_name(source, self._is_csv)
        with self._errors_explained():
            for row in [_row(face) for face in faces] or [(None,) * (len(self._columns) - 3)]:
                row = (name, frame, timestamp_ms, *row)
                if self._is_csv:
                    self._writer.writerow(map(self._as_text, row))
                else:
                    self._file.write(json.dumps(dict(zip(self._columns, row))) + "\n")
            self._file.flush()

    def _as_text(self, value):
        return f"{value:.5f}".replace(".", self._style.decimal) if isinstance(value, float) else value

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


def _row(face: FaceResult) -> tuple:
    """Return the fields of a face, in the order of the columns."""
    figures = [round(float(value), 5) for value in (face.confidence, *face.probabilities)]
    return face.face, *face.box, face.emotion, *figures


def check_names(output: Path | None, plot: Path | None) -> None:
    """Raise UserError unless the names of a table and a plot end in formats that are written."""
    if output and output != STDOUT and output.suffix.lower() not in SUFFIXES:
        raise UserError(f"{output} is not a name for results; end it in {' or '.join(SUFFIXES)}")
    if plot:
        check_plot(plot)


class Outputs:
    """The files of a run, as many as were asked for; a context manager that completes them.

    `output` takes a row for each face and frame, `save` what is shown: a video, a picture, or a folder,
    `plot` a picture of it all. Raises UserError for a name that does not fit the source, and if a file would
    overwrite one that is read, or another output, by whatever name or link.
    """

    def __init__(
        self,
        source: Source,
        classes: tuple[str, ...],
        output: Path | None = None,
        save: Path | None = None,
        plot: Path | None = None,
        style: TableFormat = TableFormat(),
    ):
        self.source, self.save, self.to_stdout = source, save, output == STDOUT
        self.paths = [path for path in (output, plot, save) if path and path != STDOUT]
        self._taken: dict = {}
        """files that must not be written, and what they are, by their identity"""
        if self.paths:
            self._check_files({"--output": output, "--plot": plot})
        self._files, self._video = contextlib.ExitStack(), None
        names = [file.name for file in source.files]
        self._table = self._files.enter_context(Table(output, classes, names, style)) if output else None
        self._plot = Plot(plot, classes, source.name if source.kind == "folder" else "") if plot else None

    def _check_files(self, options: dict[str, Path | None]) -> None:
        kind, save = self.source.kind, self.save
        if kind == "folder" and save and (save.suffix or save.is_file()):
            raise UserError(f"--save {save}: for a folder of pictures, name a folder")
        wanted = PICTURE_SUFFIXES if kind == "picture" else tuple(CODECS)
        if kind != "folder" and save and save.suffix.lower() not in wanted:
            raise UserError(f"--save {save}: for a {kind}, end the name in {' or '.join(wanted[:4])}")
        what = "is read by this run" if kind == "folder" else "is the source itself"
        self._taken = {_identity(file.path): what for file in self.source.files}
        if kind == "folder":
            self._taken[_identity(Path(self.source.name))] = "is the source itself"
        for option, path in options.items():
            if path and path != STDOUT:
                self._check_free(path, option)
                self._taken[_identity(path)] = f"is written by {option}"
        if save:
            self._check_free(save)

    def _check_free(self, path: Path, option: str = "--save") -> None:
        if what := self._taken.get(_identity(path)):
            raise UserError(f"{option} {path} {what}; choose another name")

    def add_frame(self, frame: Frame, faces: list[FaceResult]) -> None:
        """Add what was read from a video's frame to table and plot."""
        if self._table:
            self._table.write(frame.source, frame.index, frame.timestamp_ms, faces)
        if self._plot:
            self._plot.add_frame(frame, faces)

    def add_picture(self, result: PictureResult) -> None:
        """Add what was read from a file to table and plot: a picture, or what can't be read."""
        if self._table:
            self._table.write(result.name, 0, 0, result.faces)
        if self._plot and not result.problem:
            self._plot.add_picture(result)

    def save_picture(self, name: str, image) -> None:
        """Write an annotated picture (height, width, 3) uint8."""
        if self.save:
            write_picture(self._path_for(name, PICTURE_SUFFIXES, ".png"), image)

    def save_frame(self, source: Source, frame: Frame, image) -> None:
        """Add the annotated frame (height, width, 3) uint8 to the video of its source."""
        if not self.save:
            return
        if frame.index == 0:
            self._end_video()
            path = self._path_for(frame.source, tuple(CODECS), ".mp4")
            sound = Sound(source.sound, source.start_s) if source.sound else None
            self._video = VideoRecorder(path, source.fps, sound)
        self._video.write(image, frame.timestamp_ms)

    def _path_for(self, name: str, suffixes: tuple[str, ...], suffix: str) -> Path:
        """Return where an annotated file goes; in a folder, those of other kinds get one more suffix."""
        if self.source.kind != "folder":
            return self.save
        path = self.save / Path(name).relative_to(self.source.name)
        if path.suffix.lower() not in suffixes:
            path = path.with_name(os.fsdecode(os.fsencode(path.name)[: LONGEST_NAME - len(suffix)]) + suffix)
        self._check_free(path)
        return path

    def _end_video(self, *exception) -> None:
        video, self._video = self._video, None
        if video:
            video.__exit__(*(exception or (None, None, None)))

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(self, *exception) -> None:
        with self._files:
            self._end_video(*exception)
            if self._plot and exception[0] is None:
                self._plot.write()


def _identity(path: Path):
    """Return what two names of one file have in common; of one that is not there yet, whatever its case."""
    try:
        status = os.stat(path)
        return status.st_dev, status.st_ino
    except OSError:
        return os.path.realpath(path).casefold()
