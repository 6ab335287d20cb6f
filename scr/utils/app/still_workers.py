"""Still pictures of a folder read by several processes: the same readings in the same order, on all cores."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..faces.images import import_cv2
from ..faces.pool import Lost, work_through
from ..video.frames import Frame

FEWEST_PICTURES = 16
"""For fewer, one process does: starting more takes longer than reading."""
AHEAD_WITH_IMAGES = 2
"""Pictures for each process that may wait to be drawn: one takes up to 48 MB."""
AHEAD = 64


def read_pictures(
    files: Sequence[tuple[str, Path]], model: str, max_faces: int | None, jobs: int, images: bool
) -> Iterator[Frame]:
    """Yield a frame with its readings for each picture (name, path), in order; `images`: with its pixels.

    A picture that kills its process costs itself: its frame says so in `problem`.
    """
    open_worker = partial(_open_worker, model, max_faces, images)
    ahead = AHEAD_WITH_IMAGES if images else AHEAD
    for (name, _), frame in zip(files, work_through(open_worker, files, jobs, ahead=ahead)):
        if isinstance(frame, Lost):
            problem = f"{name}: the detector failed on it"
            frame = Frame(None, 0, 0, name, time.monotonic(), still=True, problem=problem, readings=[])
        yield frame


@contextlib.contextmanager
def _open_worker(model: str, max_faces: int | None, images: bool):
    from .pipeline import FaceReader

    import_cv2().setNumThreads(1)  # the other cores have processes of their own
    with FaceReader(model, True, max_faces, 0) as reader:
        yield partial(_read, reader, images)


def _read(reader, images: bool, file: tuple[str, Path]) -> Frame:
    from ..video.sources import read_picture_file

    frame = read_picture_file(*file)
    readings = reader.read_still(frame) if frame.image is not None else []
    return replace(frame, readings=readings, image=frame.image if images else None)
