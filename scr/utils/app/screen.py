"""The live demo's window: what is shown, at which pace, and what the keys do."""

import contextlib
import time
from pathlib import Path

from ..config import DATA, note, relative
from ..model.swap import NAME
from ..video.video_writer import write_picture
from .windows.live_view import View
from .windows.window import QUIT_KEYS, Window, display_problem

SNAPSHOTS = DATA / "snapshots"


class Screen:
    """Draws frames and readings, shows them if there is a window, obeys the keys; a context manager.

    `waits`: a still picture stays until a key is pressed.
    """

    def __init__(self, source, reader, mirror: bool, window: bool = True, waits: bool = False):
        self.source, self.reader, self.waits = source, reader, waits
        name = reader.classifier.name
        self.view = View(reader.classifier.classes, "" if name == NAME else name, mirror)
        self._windows = contextlib.ExitStack()
        self.window = open_window(self._windows) if window else None
        self._fps = 0.0
        self._frames = 0
        self._last = None
        self._start = self._drawn = time.perf_counter()

    def draw(self, frame, readings: list, seconds: float):
        """Return the picture (height, width, 3) uint8 to show of a frame that took some seconds to read."""
        now = time.perf_counter()
        rate = 1 / max(now - self._drawn, 1e-6)
        self._frames += 1
        self._fps += (rate - self._fps) * (0.05 if self._frames > 10 else 0.5)
        self._drawn = now
        latency_s = time.monotonic() - frame.captured if self.source.live else seconds
        self._last = (frame, readings, latency_s * 1000)
        return self._draw_last()

    def _draw_last(self):
        frame, readings, latency_ms = self._last
        self.view.neutral = self.reader.neutral_state
        if self.reader.doubt:
            self.view.say(self.reader.doubt, 5.0)
            self.reader.doubt = ""
        if frame.still:
            return self.view.draw(frame.image, readings, caption=Path(frame.source).name)
        return self.view.draw(
            frame.image, readings, frame.timestamp_ms, self._fps, latency_ms, self.source.message
        )

    def show(self, image, frame) -> bool:
        """Show a picture and obey the keys; return whether to go on. Videos keep their pace."""
        if self.window is None:
            return True
        self.window.show(image)
        if frame.still and self.waits:
            return self._wait_for_space()
        ahead = 0.0
        if not (self.source.live or frame.still):
            if frame.index == 0:
                self._start = time.perf_counter()
            ahead = self._start + frame.timestamp_ms / 1000 - time.perf_counter()
        return self.press(self.window.read_key(max(0.001, ahead)))

    def _wait_for_space(self) -> bool:
        while (key := self.window.read_key(0.05)) != "space":
            if not self.press(key):
                return False
            if key:
                self.window.show(self._draw_last())
        return True

    def idle(self) -> bool:
        """Look after the window and the user while there is no new frame; return whether to go on."""
        if self.window is None:
            return True
        if self.source.message and self._last:
            self._last = (self._last[0], [], self._last[2])
            self.window.show(self._draw_last())
        return self.press(self.window.read_key())

    def press(self, key: str) -> bool:
        """Obey a key; return whether to go on."""
        if key in QUIT_KEYS:
            return False
        if key == "s" and self._last:
            self.save_snapshot()
        if key == "n":
            self._toggle_neutral()
        self.view.press(key)
        return True

    def _toggle_neutral(self) -> None:
        if problem := self.reader.neutral_problem():
            self.view.say(problem)
        elif self.reader.neutral_state:
            self.reader.drop_neutral()
        else:
            self.reader.take_neutral()

    def save_snapshot(self) -> None:
        """Write what is shown to data/snapshots."""
        path = SNAPSHOTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{self._frames:05}.png"
        write_picture(path, self._draw_last())
        note(f"saved {relative(path)}")
        self.view.say(f"saved in {relative(SNAPSHOTS)}")

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *exception) -> None:
        self._windows.__exit__(*exception)


def open_window(stack: contextlib.ExitStack):
    """Return a window that the stack closes, or None with a note if there is no display."""
    if problem := display_problem():
        note(f"no display ({problem}): going on without a window")
        return None
    return stack.enter_context(Window())
