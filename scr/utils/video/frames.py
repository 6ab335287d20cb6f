"""What every source of frames has in common.

Files and pictures come whole and in order. Cameras and streams come as the newest frame only: a slow network
must never show an old face.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config import note

TICK_S = 0.05
"""How long a source waits for a frame before it lets the caller look after its window."""
FALLBACK_FPS = 30.0


@dataclass(frozen=True)
class Frame:
    """One frame of a video or one picture: image (height, width, 3) uint8 BGR.

    `index` and `timestamp_ms` begin at 0 with each picture and each video; `captured` is on the clock of
    time.monotonic(). `still`: a picture. `full_size` (width, height) is that of a picture whose image is a
    smaller copy.
    """

    image: np.ndarray
    index: int
    timestamp_ms: int
    source: str
    captured: float
    still: bool = False
    full_size: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels of what was filmed, which boxes are given in."""
        return self.full_size[::-1] if self.full_size else self.image.shape[:2]


class InputFile(NamedTuple):
    """A file that a source reads: its name as given, its path, and whether it is a picture or a video."""

    name: str
    path: Path
    is_picture: bool


class Source:
    """Base of all sources: context managers that give `Frame`s, or None where there is nothing new yet."""

    live = False
    fps = FALLBACK_FPS
    """frames a second, roughly: what a file format without time stamps is told"""
    loops = False
    """whether a video begins again at its end"""
    sound = None
    """the file or address whose sound goes with the frames, if any"""
    start_s = 0.0
    """where on the clock of `sound` the first frame lies"""
    files: list[InputFile] = []
    """those that it reads"""

    def __init__(self, name: str, kind: str):
        self.name, self.kind = name, kind
        """kind: camera, stream, video, picture or folder"""
        self.news: deque[str] = deque()
        """what happened and is not yet told"""
        self.message = self.failure = ""
        """what is wrong at this moment, for the display; why the source ended, if it did not end well"""

    def _warn(self, message: str) -> None:
        if message != self.message:
            self.message = message
            self.news.append(message)

    def tell_news(self) -> None:
        """Tell the user what has happened."""
        while self.news:
            note(self.news.popleft())

    def close(self) -> None:
        """Stop reading and free the device."""

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def look_ahead(items: Iterable, work: Callable, most: int) -> Iterator:
    """Yield work(item) of each item in order, done in a thread; `most` are done before the caller wants them.

    None comes where the next is not done within `TICK_S`. What the thread raises is raised to the caller,
    after all results before it. Close it to end its thread.
    """
    items, end = iter(items), object()

    def step():
        for item in items:
            return work(item)
        return end

    thread = ThreadPoolExecutor(1)
    try:
        steps = deque(thread.submit(step) for _ in range(most))
        while True:
            if wait([steps[0]], TICK_S).not_done:
                yield None
                continue
            result = steps.popleft().result()
            if result is end:
                return
            steps.append(thread.submit(step))
            yield result
    finally:
        thread.shutdown(cancel_futures=True)
