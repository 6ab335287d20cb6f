"""The newest frame of a camera or stream, opened again when it fails.

A camera that is unplugged fails, blocks, or repeats its last frame; all three end in a message, attempts to
open it again, and at last in `source.failure`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .frames import TICK_S, Frame, Source

BLACK = 16
"""The brightest value of a picture that shows nothing: behind a closed shutter there is some noise."""


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
        self,
        name: str,
        capture,
        reopen: Callable[[], object | None],
        kind: str,
        patience: Patience = Patience(),
    ):
        super().__init__(name, kind)
        self._reopen, self._patience = reopen, patience
        self._fresh = threading.Condition()
        self._newest: tuple[np.ndarray, float] | None = None
        self._generation = 0
        self._start_thread(capture)

    def _start_thread(self, capture) -> None:
        self._generation += 1
        self._thread = threading.Thread(
            target=self._keep_newest, args=(capture, self._generation), daemon=True
        )
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
            if silent > self._patience.gone:
                self.failure = (
                    f"{self.kind} {self.name} gave no frame for {silent:.0f} s; plug it in and start again"
                )
                return
            if silent > self._patience.stalled:
                self._warn(f"{self.kind} {self.name} gives no frame, trying again")
                if time.monotonic() - restarted > 2 * self._patience.stalled:
                    # A read that hangs can only be left behind.
                    restarted = time.monotonic()
                    self._start_thread(None)
            yield None

    def _keep_newest(self, capture, generation: int) -> None:
        watch = _Watch(self._patience.frozen)
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
            what = watch.problem(image) if image is not None and self.kind == "camera" else ""
            if image is None:
                self._warn(f"{self.kind} {self.name} is lost, trying again")
                time.sleep(self._patience.retry / 10)
            elif what == "frozen":
                self._warn(f"{self.kind} {self.name} repeats its last frame, opening it again")
            else:
                self._give(image)
                if what:
                    self.news.append(f"{self.kind} {self.name}: {what}")
                continue
            capture.close()
            capture = None
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
        self._believed: np.ndarray | None = None
        self._told_black = False
        self.begin()

    def begin(self) -> None:
        """Begin with a camera that was just opened."""
        self._last: np.ndarray | None = None
        self._changed = self._lit = time.monotonic()

    def problem(self, image: np.ndarray) -> str:
        """Return what is wrong with a frame: `frozen`, or that the picture is black, once; or ""."""
        now = time.monotonic()
        sample = image[::8, ::8].copy()
        if self._last is None or not np.array_equal(sample, self._last):
            self._changed, self._last = now, sample
        if sample.max() > BLACK:
            self._lit = now
        elif now - self._lit > self._patience_s and not self._told_black:
            self._told_black = True
            return "the picture is black; open its shutter, or close the program that holds the camera"
        known = self._believed is not None and np.array_equal(sample, self._believed)
        if self._lit != now or known or now - self._changed <= self._patience_s:
            return ""
        self._believed = sample  # if the camera still shows it when it was opened again, it sees that
        return "frozen"
