"""The live demo's window: what it shows, at which pace, and what the keys do."""

import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ...faces.images import import_cv2
from .canvas import AMBER, DIM, FAINT, INK, PANEL, UNSURE, Canvas, RowLayout, class_colours

BARS_TOP = 80
PANEL_MS = 100
"""How often figures and bars change if nothing else does: numbers that dance at 30 a second can't be read."""
HELP = (
    ("q  Esc", "quit"),
    ("m", "mirror"),
    ("l", "landmarks"),
    ("n", "your neutral face"),
    ("s", "save a picture"),
    ("space", "next picture"),
    ("h", "close help"),
)


class Timeline:
    """The last ten seconds as a strip: its colour is the emotion, its height the confidence."""

    SPAN_MS = 10_000
    _ROOM = 4096

    def __init__(self):
        self._times, self._values = np.zeros(self._ROOM, np.int64), np.zeros(self._ROOM, np.float32)
        self._colours = np.zeros(
            self._ROOM, np.uint32
        )  # packed into one number each: five times faster to choose from
        self._count = 0

    def add(self, timestamp_ms: int, confidence: float, colour: tuple[int, int, int]) -> None:
        """Enter a moment; confidence 0 for one without a face."""
        if self._count == self._ROOM:
            keep = self._ROOM // 2
            for array in (self._times, self._values, self._colours):
                array[:keep] = array[-keep:]
            self._count = keep
        at = self._count
        self._times[at], self._values[at], self._colours[at] = timestamp_ms, confidence, _pack(colour)
        self._count += 1

    def render(self, width: int, height: int) -> np.ndarray:
        """Return the strip (height, width, 3) uint8, the newest moment at the right."""
        times = self._times[: self._count]
        now = times[-1] if self._count else 0
        ages, levels = self._grid(width, height)
        index = times.searchsorted(now - ages, side="right") - 1
        values = np.where(index >= 0, self._values[index], 0)
        strip = np.where(levels <= values, self._colours[index], _pack(FAINT))
        cv2 = import_cv2()
        return cv2.cvtColor(strip.view(np.uint8).reshape(height, width, 4), cv2.COLOR_BGRA2BGR)

    @staticmethod
    @lru_cache(2)
    def _grid(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the age (width,) of each column in ms and the confidence (height, 1) of each row."""
        return (
            np.linspace(Timeline.SPAN_MS, 0, width).round().astype(np.int64),
            (np.arange(height, 0, -1, dtype=np.float32) / height)[:, None],
        )


@lru_cache
def _pack(colour: tuple[int, int, int]) -> np.uint32:
    return np.array((*colour, 0), np.uint8).view(np.uint32)[0]


class View:
    """Draws frames and the readings of their faces; keeps what the keys m, l and h switch."""

    def __init__(self, classes: Sequence[str], model_name: str = "", mirror: bool = False):
        self.classes, self.model_name, self.mirror = tuple(classes), model_name, mirror
        self.colours = class_colours(classes)
        self.show_landmarks = self.show_help = False
        self.neutral = ""
        """what to say of the reference that the face is read against"""
        self.canvas = Canvas()
        self.timeline = Timeline()
        self._said, self._said_until = "", 0.0
        self._shown, self._shown_ms = None, 0
        self._figures: dict[int, float] = {}
        """the confidences that the panel shows, by face: the tags beside the faces show the same"""

    def say(self, text: str, seconds: float = 2.5) -> None:
        """Show a message for some seconds."""
        self._said, self._said_until = text, time.monotonic() + seconds

    def press(self, key: str) -> bool:
        """Take a key; return whether it was one that changes the view."""
        if key == "m":
            self.mirror = not self.mirror
        elif key == "l":
            self.show_landmarks = not self.show_landmarks
        elif key == "h":
            self.show_help = not self.show_help
        else:
            return False
        return True

    def draw(
        self,
        frame_bgr: np.ndarray,
        readings: Sequence,
        timestamp_ms: int | None = None,
        fps: float = 0.0,
        latency_ms: float = 0.0,
        message: str = "",
        caption: str = "",
    ) -> np.ndarray:
        """Return the picture to show of frame_bgr (height, width, 3) and its `readings`, the main one first.

        With a timestamp the panel shows the time line and the speed, without (still pictures) the caption.
        The array is reused by the next call.
        """
        self.canvas.begin(frame_bgr, self.mirror, keep_panel=True)
        if timestamp_ms is not None:
            main = readings[0] if readings else None
            self.timeline.add(
                timestamp_ms, *((main.confidence, self.colour_of(main.emotion)) if main else (0.0, FAINT))
            )
        message = message or (self._said if time.monotonic() < self._said_until else "")
        faces = [(reading.face, reading.emotion) for reading in readings]
        timed = timestamp_ms is not None
        shown = (frame_bgr.shape, timed, self.show_help, self.neutral, message, caption, faces)
        changed = shown != self._shown
        if changed:
            self._shown = shown
            self._draw_panel(timed, message, caption, bool(readings))
        if changed or not timed or not 0 <= timestamp_ms - self._shown_ms < PANEL_MS:
            self._shown_ms = timestamp_ms or 0
            self._figures = {reading.face: reading.confidence for reading in readings}
            self._draw_figures(readings, timed, f"{fps:.0f} fps  delay {latency_ms:.0f} ms")
        self._draw_faces(readings)
        return self.canvas.image

    def colour_of(self, emotion: str) -> tuple[int, int, int]:
        """Return the BGR colour of a class; grey for `uncertain`."""
        return self.colours.get(emotion, UNSURE)

    def _rows(self, timed: bool) -> RowLayout:
        """Return how the bars lie between the main face's label and what stands below them."""
        below = 92 if timed else 12
        return RowLayout.fit(len(self.classes), self.canvas.height - below - BARS_TOP - 24, 25)

    def _draw_panel(self, timed: bool, message: str, caption: str, has_face: bool) -> None:
        """Draw what stays until the faces, their emotions or the view change."""
        canvas = self.canvas
        bottom = canvas.height - (92 if timed else 12)
        canvas.clear_panel()
        canvas.text(canvas.fit_text(self.model_name, 110, 12), 12, 22, 12, DIM)
        canvas.text("h  help", PANEL - 12, 22, 12, DIM, right=True)
        if self.show_help:
            self._draw_help(80, "space" if timed else "n")
        else:
            rows = self._rows(timed)
            for row, name in enumerate(self.classes):
                y, name = BARS_TOP + row * rows.pitch, canvas.fit_text(name, PANEL - 64, rows.size)
                canvas.text(name, 12, y + rows.size - 2, rows.size, INK if has_face else DIM)
                canvas.fill(12, y + rows.bar_top, PANEL - 24, rows.bar, FAINT)
            canvas.text(self.neutral, 12, BARS_TOP + len(self.classes) * rows.pitch + 16, 12, INK)
        if message:
            canvas.text(canvas.fit_text(message, PANEL - 24, 12), 12, bottom - 4, 12, AMBER)
        if timed:
            canvas.text("last 10 s", 12, canvas.height - 14, 12, DIM)
        elif not message:
            canvas.text(canvas.fit_text(caption, PANEL - 24, 12), 12, canvas.height - 12, 12, DIM)

    def _draw_figures(self, readings: Sequence, timed: bool, speed: str) -> None:
        """Draw what changes all the time over what stood there before."""
        canvas = self.canvas
        self._draw_main_face(readings)
        if readings and not self.show_help:
            rows = self._rows(timed)
            self._draw_bars(rows, readings[0].probabilities)
            below = BARS_TOP + len(self.classes) * rows.pitch + 8
            self._draw_other_faces(below, canvas.height - (116 if timed else 36), readings)
        if timed:
            strip = self.timeline.render(round((PANEL - 24) * canvas.scale), round(44 * canvas.scale))
            canvas.paste(12, canvas.height - 82, strip)
            canvas.figure(speed, PANEL - 12, canvas.height - 14, 122, 12, DIM, right=True)

    def _draw_faces(self, readings: Sequence) -> None:
        canvas, tags = self.canvas, []
        for reading in readings:
            points, colour = canvas.to_pixels(reading.landmarks), self.colour_of(reading.emotion)
            if self.show_landmarks:
                canvas.draw_points(points)
            canvas.draw_contours(points, colour)
            tags.append(
                (points, f"{reading.face}  {reading.emotion} {self._figures[reading.face]:.0%}", colour)
            )
        if len(tags) > 1:
            canvas.draw_tags(tags)

    def _draw_main_face(self, readings: Sequence) -> None:
        if not readings:
            self.canvas.figure("no face", 12, 62, 120, 24, UNSURE, 500)
            return
        main = readings[0]
        label = f"{main.face}  {main.emotion}" if len(readings) > 1 else main.emotion
        label, size = self.canvas.fit_label(label, 120, 24)
        self.canvas.figure(label, 12, 62, 120, size, self.colour_of(main.emotion), 600)
        self.canvas.figure(f"{main.confidence:.0%}", PANEL - 12, 62, 56, 20, INK, 500, right=True)

    def _draw_bars(self, rows: RowLayout, probabilities: np.ndarray) -> None:
        for row, (name, probability) in enumerate(zip(self.classes, probabilities.tolist())):
            shown, y = f"{probability:.0%}", BARS_TOP + row * rows.pitch
            length = 0 if shown == "0%" else (PANEL - 24) * probability
            self.canvas.figure(shown, PANEL - 12, y + rows.size - 2, 40, rows.size, DIM, right=True)
            self.canvas.fill(12, y + rows.bar_top, length, rows.bar, self.colour_of(name))
            self.canvas.fill(12 + length, y + rows.bar_top, PANEL - 24 - length, rows.bar, FAINT)

    def _draw_other_faces(self, top: float, bottom: float, readings: Sequence) -> None:
        for row, reading in enumerate(readings[1:]):
            y = top + row * 20 + 12
            if y > bottom:
                break
            label = self.canvas.fit_text(f"{reading.face}  {reading.emotion}", 120, 13, 500)
            self.canvas.figure(label, 12, y, 120, 13, self.colour_of(reading.emotion), 500)
            self.canvas.figure(f"{reading.confidence:.0%}", PANEL - 12, y, 40, 13, DIM, right=True)

    def _draw_help(self, top: float, without: str) -> None:
        """Draw what the keys do; one of them is for videos alone, one for pictures."""
        for row, (key, meaning) in enumerate(item for item in HELP if item[0] != without):
            self.canvas.text(key, 12, top + row * 19 + 10, 13, INK, 600)
            self.canvas.text(meaning, 72, top + row * 19 + 10, 13, DIM)
