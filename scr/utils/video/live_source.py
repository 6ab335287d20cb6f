"""The newest frame of a camera or stream, opened again when it fails.

A camera that is unplugged fails, blocks, or repeats its last frame; all three end in a message, attempts to
open it again, and at last in `source.failure`.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .frames import TICK_S, Frame, Source

BLACK = 16
"""The brightest value of a picture that shows nothing: behind a closed shutter there is some noise."""
BLACK_ADVICE = "open its shutter, or close the program that holds the camera"


@dataclass(frozen=True)
class Patience:
    """Seconds until a camera counts as stalled, as frozen or black, and as gone for good."""

    stalled: float = 3.0
    frozen: float = 3.0
    gone: float = 30.0
    retry: float = 1.0


class LiveSource(Source):
    """The newest frame of a camera or stream; opened again when it fails.

    `capture` is an iterator over frames with `close`; `reopen` returns a new one, or None if there is still
    none. Both are used by a thread of its own.
    """

    live = True

    def __init__(
        self, name: str, capture, reopen: Callable[[], object], kind: str, patience: Patience = Patience()
    ):
        super().__init__(name, kind)
        self._reopen, self._patience = reopen, patience
        self._fresh = threading.Condition()
        self._newest: tuple[np.ndarray, float] | None = None
        self._generation = 0
        self._start_thread(capture)

    def _start_thread(self, capture) -> None:
        self._generation += 1
        arguments = (capture, self._generation)
        self._thread = threading.Thread(target=self._keep_newest, args=arguments, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame | None]:
        start = seen = restarted = time.monotonic()
        index, timestamp_ms = 0, -1
        while True:
            with self._fresh:
                self._fresh.wait_for(lambda: self._newest is not None, TICK_S)
                newest, self._newest = self._newest, None
            if newest is not None:
                image, seen = newest
                timestamp_ms = max(timestamp_ms + 1, round((seen - start) * 1000))
                yield Frame(image, index, timestamp_ms, self.name, seen)
                index += 1
                continue
            silent = time.monotonic() - seen
            what = f"{self.kind} {self.name}"
            if silent > self._patience.gone:
                self.failure = f"{what} gave no frame for {silent:.0f} s; plug it in and start again"
                return
            if silent > self._patience.stalled:
                self._warn(f"{what} gives no frame, trying again")
                if time.monotonic() - restarted > 2 * self._patience.stalled:
                    restarted = time.monotonic()
                    self._start_thread(None)  # a read that hangs can only be left behind
            yield None

    def _keep_newest(self, capture, generation: int) -> None:
        watch = _Watch(self._patience.frozen if self.kind == "camera" else math.inf)  # streams show slides
        while generation == self._generation:
            if capture is None:
                capture = self._reopen()
                watch.begin()
            if capture is None:
                time.sleep(self._patience.retry)
                continue
            image = next(capture, None)
            if generation != self._generation:
                break
            if image is not None and not watch.is_frozen(image):
                self._give(image)
                if watch.stays_black():
                    self.news.append(f"the picture of {self.kind} {self.name} is black; {BLACK_ADVICE}")
                continue
            why = "is lost, trying again" if image is None else "repeats its last frame, opening it again"
            self._warn(f"{self.kind} {self.name} {why}")
            capture.close()
            capture = None
            time.sleep(self._patience.retry / 10)
        if capture is not None:
            capture.close()

    def _give(self, image: np.ndarray) -> None:
        if self.message:
            self.message = ""
            self.news.append(f"{self.kind} {self.name} is back")
        with self._fresh:
            self._newest = (image, time.monotonic())
            self._fresh.notify()

    def close(self) -> None:
        self._generation += 1  # the thread sees it, frees the device and ends, unless a read blocks it
        self._thread.join(1.0)


class _Watch:
    """Notices a camera that repeats its last frame, and one whose picture stays black."""

    def __init__(self, patience_s: float):
        self._patience_s = patience_s
        self._believed = None
        self._black_is_news = True
        self.begin()

    def begin(self) -> None:
        """Begin with a camera that was just opened."""
        self._last = None
        self._changed = self._lit = time.monotonic()

    def is_frozen(self, image: np.ndarray) -> bool:
        """Tell, once, whether a frame has come for too long; a black one is not taken for frozen.

        A camera that shows it still when it was opened again sees what it shows.
        """
        now = time.monotonic()
        sample = image[::8, ::8].copy()
        if not np.array_equal(sample, self._last):
            self._changed, self._last = now, sample
        if sample.max() <= BLACK:
            return False
        self._lit = now
        if now - self._changed <= self._patience_s or np.array_equal(sample, self._believed):
            return False
        self._believed = sample
        return True

    def stays_black(self) -> bool:
        """Tell, once, that there was nothing but black for too long."""
        stays = self._black_is_news and time.monotonic() - self._lit > self._patience_s
        self._black_is_news = self._black_is_news and not stays
        return stays
