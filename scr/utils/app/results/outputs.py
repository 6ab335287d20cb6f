"""The files of a run: a table of rows, the annotated pictures and videos, a plot."""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from ...config import UserError
from ...video.frames import Frame, Source
from ...video.video_writer import CODECS, Sound, VideoRecorder, write_picture
from ..pipeline import FaceResult, PictureResult
from .plot import Plot, check_plot
from .summary import SummaryTable
from .table import PLAIN, STDOUT, SUFFIXES, FaceTable, TableFormat

LONGEST_NAME = 255
"""Bytes, on every usual file system."""
PICTURE_SUFFIXES = tuple(".jpg .png .jpeg .bmp .jpe .tif .tiff .ppm".split())
"""That pictures of any size and colour are written as; WebP and AVIF have limits."""


def check_names(output: Path | None, plot: Path | None, summary: Path | None) -> None:
    """Raise UserError unless the names of tables and a plot end in formats that are written."""
    for table in filter(None, (output if output != STDOUT else None, summary)):
        if table.suffix.lower() not in SUFFIXES:
            raise UserError(f"{table} is not a name for results; end it in {' or '.join(SUFFIXES)}")
    if plot:
        check_plot(plot)


class Outputs:
    """The files of a run, as many as were asked for; a context manager that completes them.

    `output` takes a row for each face and frame, `save` what is shown: a video, a picture, or a folder,
    `plot` a picture of it all; `summary_table`, if `summary` names one, is filled by a `Summary`.
    more_columns: of the table, see `FaceTable`. Raises UserError for a name that does not fit the source, and
    if a file would overwrite one that is read, or another output, by whatever name or link.
    """

    def __init__(
        self,
        source: Source,
        classes: tuple[str, ...],
        output: Path | None = None,
        save: Path | None = None,
        plot: Path | None = None,
        style: TableFormat = PLAIN,
        more_columns: Collection[str] = (),
        summary: Path | None = None,
    ):
        self.source, self.save, self.to_stdout = source, save, output == STDOUT
        self.paths = [path for path in (output, summary, plot, save) if path and path != STDOUT]
        self._taken: dict = {}
        """files that must not be written, and what they are, by their identity"""
        if self.paths:
            self._check_files({"--output": output, "--summary": summary, "--plot": plot})
        self._files, self._video = contextlib.ExitStack(), None
        names = [file.name for file in source.files]
        self._table = self.summary_table = None
        if output:
            self._table = FaceTable(output, classes, names, style, more_columns)
            self._files.enter_context(self._table)
        if summary:
            self.summary_table = SummaryTable(summary, classes, names, style)
            self._files.enter_context(self.summary_table)
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
