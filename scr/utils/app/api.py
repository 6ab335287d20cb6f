"""Pictures and videos -> emotions, for programs of others, as main.py reads them (docs/python.md)."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..config import MODELS, UserError, note
from ..video.frames import Frame, Source
from ..video.sources import open_source, read_picture_file
from .pipeline import FaceReader, FaceResult
from .pipeline import read_video as read_frames
from .smoothing import TIME_CONSTANT_MS

Picture = str | Path | np.ndarray
"""A file, or pixels (height, width, 3) uint8 in OpenCV's order: blue, green, red."""


@dataclass(frozen=True, eq=False)
class FrameResult:
    """A frame of a video with its faces.

    source: the video as it was named; frame: the number, from 0; timestamp_ms: milliseconds since the first;
    image: (height, width, 3) uint8, blue first.
    """

    source: str
    frame: int
    timestamp_ms: int
    faces: list[FaceResult]
    image: np.ndarray = field(repr=False)

    def to_dict(self, *columns: str) -> dict:
        """Return all but the image for JSON; columns: as `FaceResult.to_dict` takes them."""
        about = {"source": self.source, "frame": self.frame, "timestamp_ms": self.timestamp_ms}
        return about | {"faces": [face.to_dict(*columns) for face in self.faces]}


class Reader:
    """Keeps a model's networks loaded. Several threads may use it.

    model: as `--model` of main.py: a folder, a `.tflite` file, or a name. classes: those to tell apart, or
    "all" that the model knows; None: the model's own choice. max_faces: the largest that are read; None: all
    of a picture, one of a video. smoothing_ms: the time constant of the smoothing in videos; 0: none. Raises
    EmotionDetectionError if there is no such model, or for classes that it lacks.
    """

    def __init__(
        self,
        model: str | Path = MODELS,
        classes: str | Sequence[str] | None = None,
        max_faces: int | None = None,
        smoothing_ms: float = TIME_CONSTANT_MS,
    ):
        self._open = functools.partial(FaceReader, str(model), max_faces, smoothing_ms, classes)
        self._idle = [self._open()]
        """One for each video or picture that is being read at this moment: 60 MB"""
        self._cores = threading.BoundedSemaphore(os.cpu_count() or 1)
        self.classes: tuple[str, ...] = self._idle[0].classifier.classes

    def read_faces(self, pictures: Picture | Iterable[Picture]) -> list:
        """Return a picture's faces (`FaceResult`), the largest first; of many pictures, a list for each.

        Raises EmotionDetectionError if a picture can't be read, or for pixels of another shape or type.
        """
        if not isinstance(pictures, Picture):
            return [self.read_faces(picture) for picture in pictures]
        if isinstance(pictures, np.ndarray):
            frame = Frame(np.ascontiguousarray(pictures), 0, 0, "pixels", time.monotonic(), still=True)
        else:
            frame = read_picture_file(str(pictures), Path(pictures))
        with self._cores, self._borrow() as reader:
            return reader.read(frame, reader.find(frame))

    def read_video(self, source: str | Path | int | Iterable) -> Iterator[FrameResult]:
        """Yield each frame of a video with its faces: people are numbered, probabilities smoothed in time.

        source: a file, a stream's address or a camera's number, as `--source` of main.py; or the frames
        themselves, pixels as `Picture` has them, each alone (its time is when it comes) or in a pair with its
        time in ms. Of cameras and streams, frames that come while the caller is busy are left out. Raises
        EmotionDetectionError if the source can't be opened, and when a camera or stream is gone for good.
        """
        named = isinstance(source, str | Path | int)
        with (
            open_source(str(source)) if named else _GivenFrames(source) as frames,
            self._borrow() as reader,
            contextlib.closing(read_frames(reader, frames)) as results,
        ):
            for frame, faces in results:
                frames.tell_news()
                if frame:
                    yield FrameResult(frame.source, frame.index, frame.timestamp_ms, faces, frame.image)
            frames.tell_news()
        if frames.failure and frames.live:
            raise UserError(frames.failure)
        elif frames.failure:
            note(frames.failure)

    @contextlib.contextmanager
    def _borrow(self) -> Iterator[FaceReader]:
        """Yield a FaceReader that nobody else uses meanwhile; it remembers a video's people."""
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = self._open()
        try:
            yield reader
        finally:
            self._idle.append(reader)


class _GivenFrames(Source):
    """The frames of a caller, as `Reader.read_video` takes them."""

    def __init__(self, frames: Iterable):
        super().__init__("frames", "video")
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
        start = time.monotonic()
        for index, given in enumerate(self._frames):
            now = time.monotonic()
            image, timestamp_ms = given if isinstance(given, tuple) else (given, (now - start) * 1000)
            # A copy: it is read ahead, and the caller may fill the same array again.
            yield Frame(np.array(image), index, round(timestamp_ms), self.name, now)


_open_once = functools.cache(Reader)


def _reader(**options) -> Reader:
    return _open_once(**{name: tuple(one) if isinstance(one, list) else one for name, one in options.items()})


def read_faces(pictures: Picture | Iterable[Picture], model: str | Path = MODELS, **options) -> list:
    """Read pictures as `Reader.read_faces` does, by a reader that is kept; options: as `Reader` has them."""
    return _reader(model=model, **options).read_faces(pictures)


def read_video(
    source: str | Path | int | Iterable, model: str | Path = MODELS, **options
) -> Iterator[FrameResult]:
    """Read a video as `Reader.read_video` does, by a reader that is kept; options: as `Reader` has them."""
    return _reader(model=model, **options).read_video(source)
