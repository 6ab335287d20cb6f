"""The newest frame of a camera or stream, opened again when it fails.

A camera that is unplugged returns False, blocks, or repeats its last frame; all three end in a message,
attempts to open it again, and at last in `source.failure`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .camera import read_image, release
from .frames import TICK_S, Frame, Source


@dataclass(frozen=True)
class Patience:
    """Seconds until a camera counts as stalled, as frozen, and as gone for good."""

    stalled: float = 3.0
    frozen: float = 3.0
    gone: float = 30.0
    retry: float = 1.0


class LiveSource(Source):
    """The newest frame of a camera or stream; opened again when it fails.

    `reopen` returns a new capture, or None if there is still none; it runs in the reading thread.
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
        self._still: np.ndarray | None = None
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
        changed = time.monotonic()
        last = None
        while generation == self._generation:
            if capture is None:
                capture = self._reopen()
                changed, last = time.monotonic(), None
                if capture is None:
                    time.sleep(self._patience.retry)
                    continue
            image = read_image(capture)
            if image is None:
                self._warn(f"{self.kind} {self.name} is lost, trying again")
                release(capture)
                capture = None
                time.sleep(self._patience.retry / 10)
                continue
            sample = image[::8, ::8].copy()
            if last is None or not np.array_equal(sample, last):
                changed, last = time.monotonic(), sample
            if generation == self._generation and not self._is_frozen(sample, changed):
                if self.message:
                    self.message = ""
                    self.news.append(f"{self.kind} {self.name} is back")
                with self._fresh:
                    self._newest = (image, time.monotonic())
                    self._fresh.notify()
            elif generation == self._generation:
                release(capture)
                capture, self._still = None, sample
        release(capture)

    def _is_frozen(self, sample: np.ndarray, changed: float) -> bool:
        """Tell whether the camera repeats its last frame; if it still does when reopened, it sees that."""
        if (
            self.kind != "camera" or time.monotonic() - changed <= self._patience.frozen
        ):  # a stream may show slides
            return False
        if self._still is not None and np.array_equal(sample, self._still):
            return False
        self._warn(f"{self.kind} {self.name} repeats its last frame, opening it again")
        return True

    def close(self) -> None:
        self._generation += 1  # the thread sees it, frees the device and ends, unless a read blocks it
        self._thread.join(1.0)
