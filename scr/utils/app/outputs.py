"""Where a run's answers go: rows, the annotated video, annotated pictures."""

import contextlib
import os
from pathlib import Path

from ..config import UserError
from ..files import LONGEST_NAME
from ..video.video_writer import CODECS, Sound, VideoRecorder, write_picture
from .plot import Plot
from .table import ResultWriter

PICTURE_SUFFIXES = tuple(".jpg .png .jpeg .bmp .jpe .tif .tiff .ppm".split())
"""That pictures of any size and colour are written as; WebP and AVIF have limits."""


def check_save(save: Path | None, source) -> None:
    """Refuse a name for the annotated picture or video that does not fit the source, or is the source."""
    if save is None:
        return
    if source.kind == "folder" and (save.suffix or save.is_file()):
        raise UserError(f"--save {save}: for a folder of pictures, name a folder")
    wanted = {"folder": ("",), "picture": PICTURE_SUFFIXES}.get(source.kind, tuple(CODECS))
    if save.suffix.lower() not in wanted:
        raise UserError(f"--save {save}: for a {source.kind}, end the name in {' or '.join(wanted[:4])}")
    if save.resolve() == Path(source.name).resolve():
        raise UserError(f"--save {save} is the source itself; choose another name")


class Outputs:
    """The files of a run, as many as were asked for; a context manager that completes them.

    `output` takes a row for each face and frame, `save` what is shown: a video, a picture, or a folder,
    `plot` a picture of it all.
    """

    def __init__(
        self,
        source,
        classes: tuple[str, ...],
        output: Path | None,
        save: Path | None,
        plot: Path | None = None,
    ):
        self.source, self.save = source, save
        self.paths = [path for path in (output, plot, save) if path]
        self._files = contextlib.ExitStack()
        self._results = self._files.enter_context(ResultWriter(output, classes)) if output else None
        folder = source.name if source.kind == "folder" else ""
        self._plot = Plot(plot, classes, folder) if plot else None
        self._video = None

    def write_rows(self, frame, readings: list) -> None:
        """Add the rows of a frame, and what is plotted of it."""
        if self._plot:
            self._plot.add(frame, readings)
        if self._results:
            self._results.write(frame.source, frame.index, frame.timestamp_ms, readings)

    def write_image(self, frame, image) -> None:
        """Add what is shown of a frame: image (height, width, 3) uint8."""
        if self.save is None:
            return
        path = self._path_of(frame)
        if frame.still:
            self._end_video()
            return write_picture(path, image)
        if self._video is None or self._video.path != path:
            self._end_video()
            sound = self.source.sound and Sound(self.source.sound, self.source.start_s)
            self._video = VideoRecorder(path, self.source.fps, sound)
        self._video.write(image, frame.timestamp_ms)

    def _path_of(self, frame) -> Path:
        """Return where a frame goes; in a folder, other kinds become `NAME.mp4`, `NAME.png`."""
        if self.source.kind != "folder":
            return self.save
        path = self.save / Path(frame.source).relative_to(self.source.name)
        if path.suffix.lower() in (PICTURE_SUFFIXES if frame.still else CODECS):
            return path
        suffix = ".png" if frame.still else ".mp4"
        return path.with_name(os.fsdecode(os.fsencode(path.name)[: LONGEST_NAME - len(suffix)]) + suffix)

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
