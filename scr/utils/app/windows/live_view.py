"""What the live demo shows: the annotated picture, its panel, and the window with its pace and keys."""

import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ...config import DATA, note, relative
from ...faces.images import import_cv2
from ...video.frames import Frame, Source
from ...video.video_writer import write_picture
from .canvas import AMBER, DIM, FAINT, INK, PANEL, PAPER, UNSURE, Canvas, RowLayout, class_colours
from .window import QUIT_KEYS, Window

SNAPSHOTS = DATA / "snapshots"
BARS_TOP = 80
PANEL_MS = 100
"""How often figures and bars change if nothing else does: numbers that dance at 30 a second can't be read."""
SPEED_S = 0.5
"""How often the window's frame rate and delay change."""
HELP = (
    ("q  Esc", "quit"),
    ("m", "mirror"),
    ("l", "landmarks"),
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
        # Packed into one number each: five times faster to choose from.
        self._colours = np.zeros(self._ROOM, np.uint32)
        self._count = 0

    def add(self, timestamp_ms: int, confidence: float, colour: tuple[int, int, int]) -> None:
        """Enter a moment; confidence 0 for one without a face. Time that goes back begins another strip."""
        if self._count and timestamp_ms < self._times[self._count - 1]:
            self._count = 0
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
    """Draws frames and their faces' results; what only a window's user needs is added by `add_hints`.

    The keys m, l and h switch `mirror`, `show_landmarks` and `show_help`.
    """

    def __init__(self, classes: Sequence[str], model_name: str = "", mirror: bool = False):
        self.classes, self.model_name, self.mirror = tuple(classes), model_name, mirror
        self.colours = class_colours(classes)
        self.show_landmarks = self.show_help = False
        self.canvas = Canvas()
        self.timeline = Timeline()
        self._last: tuple = ()
        self._shown, self._shown_ms = None, 0
        self._figures: dict[int, float] = {}
        """the confidences that the panel shows, by face: the tags beside the faces show the same"""

    def draw(
        self, image: np.ndarray, faces: Sequence, timestamp_ms: int | None = None, caption: str = ""
    ) -> np.ndarray:
        """Return the picture to show of an image (height, width, 3) uint8 BGR and its `FaceResult`s.

        With a timestamp the panel shows the main face's last ten seconds, without (still pictures) the
        caption. The array is reused by the next call.
        """
        self._last = image, timestamp_ms, caption
        self.canvas.begin(image, self.mirror, keep_panel=True)
        timed = timestamp_ms is not None
        if timed:
            main = faces[0] if faces else None
            moment = (main.confidence, self.colour_of(main.emotion)) if main else (0.0, FAINT)
            self.timeline.add(timestamp_ms, *moment)
        shown = (image.shape, timed, caption, [(face.face, face.emotion) for face in faces])
        changed = shown != self._shown
        if changed:
            self._shown = shown
            self._draw_panel(timed, caption, bool(faces))
        if changed or not timed or not 0 <= timestamp_ms - self._shown_ms < PANEL_MS:
            self._shown_ms = timestamp_ms or 0
            self._figures = {face.face: face.confidence for face in faces}
            self._draw_figures(faces, timed)
        self._draw_hints("", "")
        self._draw_faces(faces)
        return self.canvas.image

    def draw_again(self, faces: Sequence) -> np.ndarray:
        """Return what `draw` returned last, with these faces and as it is to be seen now."""
        image, *when = self._last
        return self.draw(image, faces, *when)

    def add_hints(self, speed: str = "", message: str = "") -> np.ndarray:
        """Add to what was drawn the way to the help, or the help, the speed and a message; return it."""
        timed = self._last[1] is not None
        self._draw_hints("h  help", speed if timed else "")
        canvas = self.canvas
        if self.show_help:
            top, foot = BARS_TOP - 12, 92 if timed else 28
            canvas.fill(0, top, PANEL, canvas.height - top - foot, PAPER)
            for row, (key, meaning) in enumerate(item for item in HELP if not timed or item[0] != "space"):
                canvas.text(key, 12, BARS_TOP + row * 19 + 10, 13, INK, 600)
                canvas.text(meaning, 72, BARS_TOP + row * 19 + 10, 13, DIM)
        if message:
            y = canvas.height - (96 if timed else 12)
            canvas.figure(canvas.fit_text(message, PANEL - 24, 12), 12, y, PANEL - 24, 12, AMBER)
        if self.show_help or message:
            self._shown = None  # the panel has to be drawn anew
        return canvas.image

    def _draw_hints(self, help_key: str, speed: str) -> None:
        self.canvas.figure(help_key, PANEL - 12, 22, 60, 12, DIM, right=True)
        if self._last[1] is not None:
            self.canvas.figure(speed, PANEL - 12, self.canvas.height - 14, 122, 12, DIM, right=True)

    def colour_of(self, emotion: str) -> tuple[int, int, int]:
        """Return the BGR colour of a class; grey for `uncertain`."""
        return self.colours.get(emotion, UNSURE)

    def _rows(self, timed: bool) -> RowLayout:
        """Return how the bars lie between the main face's label and what stands below them."""
        below = 92 if timed else 12
        return RowLayout.fit(len(self.classes), self.canvas.height - below - BARS_TOP - 24, 25)

    def _draw_panel(self, timed: bool, caption: str, has_face: bool) -> None:
        """Draw what stays until the faces or their emotions change."""
        canvas, rows = self.canvas, self._rows(timed)
        canvas.clear_panel()
        canvas.text(canvas.fit_text(self.model_name, 110, 12), 12, 22, 12, DIM)
        for row, name in enumerate(self.classes):
            y, name = BARS_TOP + row * rows.pitch, canvas.fit_text(name, PANEL - 64, rows.size)
            canvas.text(name, 12, y + rows.size - 2, rows.size, INK if has_face else DIM)
            canvas.fill(12, y + rows.bar_top, PANEL - 24, rows.bar, FAINT)
        foot = "last 10 s" if timed else canvas.fit_text(caption, PANEL - 24, 12)
        canvas.text(foot, 12, canvas.height - (14 if timed else 12), 12, DIM)

    def _draw_figures(self, faces: Sequence, timed: bool) -> None:
        """Draw what changes all the time over what stood there before."""
        canvas = self.canvas
        self._draw_main_face(faces)
        if faces:
            rows = self._rows(timed)
            self._draw_bars(rows, faces[0].probabilities)
            below = BARS_TOP + len(self.classes) * rows.pitch + 8
            self._draw_other_faces(below, canvas.height - (116 if timed else 36), faces)
        if timed:
            strip = self.timeline.render(round((PANEL - 24) * canvas.scale), round(44 * canvas.scale))
            canvas.paste(12, canvas.height - 82, strip)

    def _draw_faces(self, faces: Sequence) -> None:
        canvas, tags = self.canvas, []
        for face in faces:
            points, colour = canvas.to_pixels(face.landmarks), self.colour_of(face.emotion)
            if self.show_landmarks:
                canvas.draw_points(points)
            canvas.draw_contours(points, colour)
            tags.append((points, f"{face.face}  {face.emotion} {self._figures[face.face]:.0%}", colour))
        if len(tags) > 1:
            canvas.draw_tags(tags)

    def _draw_main_face(self, faces: Sequence) -> None:
        if not faces:
            self.canvas.figure("no face", 12, 62, 120, 24, UNSURE, 500)
            return
        main = faces[0]
        label = f"{main.face}  {main.emotion}" if len(faces) > 1 else main.emotion
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

    def _draw_other_faces(self, top: float, bottom: float, faces: Sequence) -> None:
        for row, face in enumerate(faces[1:]):
            y = top + row * 20 + 12
            if y > bottom:
                break
            label = self.canvas.fit_text(f"{face.face}  {face.emotion}", 120, 13, 500)
            self.canvas.figure(label, 12, y, 120, 13, self.colour_of(face.emotion), 500)
            self.canvas.figure(f"{face.confidence:.0%}", PANEL - 12, y, 40, 13, DIM, right=True)


class LiveWindow:
    """Shows in a window what a view has drawn of a source, at the pace of its videos, and obeys the keys.

    `waits`: a still picture stays until a key is pressed.
    """

    def __init__(self, view: View, window: Window, source: Source, waits: bool = False):
        self.view, self.window, self.source, self.waits = view, window, source, waits
        self._faces: Sequence = ()
        self._count = 0
        """of frames shown"""
        self._start = self._shown_at = self._speed_at = time.monotonic()
        self._fps, self._speed = 0.0, ""
        self._said, self._said_until = "", 0.0

    def show_frame(self, frame: Frame, faces: Sequence) -> bool:
        """Show the frame that the view has drawn, at its time, and obey a key; return whether to go on."""
        now = time.monotonic()
        if frame.index == 0:
            self._start = now
        rate = 1 / max(now - self._shown_at, 1e-6)
        self._fps += (rate - self._fps) * (0.05 if self._count > 10 else 0.5)
        self._shown_at = now
        if now - self._speed_at > SPEED_S:
            self._speed_at, self._speed = now, f"{self._fps:.0f} fps"
            if self.source.live:
                self._speed += f"  delay {(now - frame.captured) * 1000:.0f} ms"
        self._show(faces)
        ahead = 0.0 if self.source.live else self._start + frame.timestamp_ms / 1000 - time.monotonic()
        return self._press(self.window.read_key(max(0.001, ahead)))

    def show_picture(self, faces: Sequence) -> bool:
        """Show the picture that the view has drawn until space is pressed; return whether to go on."""
        self._show(faces)
        if not self.waits:
            return self._press(self.window.read_key())
        while (key := self.window.read_key(0.05)) != "space":
            if not self._press(key):
                return False
            if key:
                self._show_again()
        return True

    def idle(self) -> bool:
        """Look after the window while there is no new frame; return whether to go on."""
        if self.source.message and self._count:
            self._faces = ()
            self._show_again()
        return self._press(self.window.read_key())

    def _show(self, faces: Sequence) -> None:
        self._faces = faces
        self._count += 1
        said = self._said if time.monotonic() < self._said_until else ""
        self.window.show(self.view.add_hints(self._speed, self.source.message or said))

    def _show_again(self) -> None:
        self.view.draw_again(self._faces)
        self._show(self._faces)

    def _press(self, key: str) -> bool:
        """Obey a key; return whether to go on."""
        view = self.view
        if key == "m":
            view.mirror = not view.mirror
        elif key == "l":
            view.show_landmarks = not view.show_landmarks
        elif key == "h":
            view.show_help = not view.show_help
        elif key == "s" and self._count:
            self._save_snapshot()
        return key not in QUIT_KEYS

    def _save_snapshot(self) -> None:
        """Write what is shown, without hints, to data/snapshots."""
        path = SNAPSHOTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{self._count:05}.png"
        write_picture(path, self.view.draw_again(self._faces))
        note(f"saved {relative(path)}")
        self._said, self._said_until = f"saved in {relative(SNAPSHOTS)}", time.monotonic() + 2.5
