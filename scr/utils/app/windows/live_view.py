"""What the live demo shows: the annotated picture, its panel, and the window with its pace and keys."""

import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from ...config import DATA, note, relative
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

    def __init__(self):
        self._moments: deque[tuple[int, float, tuple[int, int, int]]] = deque()

    def add(self, timestamp_ms: int, confidence: float, colour: tuple[int, int, int]) -> None:
        """Enter a moment; confidence 0 for one without a face. Time that goes back begins another strip."""
        moments = self._moments
        if moments and timestamp_ms < moments[-1][0]:
            moments.clear()
        moments.append((timestamp_ms, confidence, colour))
        while len(moments) > 1 and moments[1][0] < timestamp_ms - self.SPAN_MS:
            moments.popleft()

    def render(self, width: int, height: int) -> np.ndarray:
        """Return the strip (height, width, 3) uint8, the newest moment at the right."""
        if not self._moments:
            return np.full((height, width, 3), FAINT, np.uint8)
        times, values, colours = (np.array(column) for column in zip(*self._moments))
        moments = times[-1] - np.linspace(self.SPAN_MS, 0, width)
        index = times.searchsorted(moments, side="right") - 1
        values = np.where(index >= 0, values[index], 0)
        levels = np.arange(height, 0, -1)[:, None] / height
        return np.where((levels <= values)[..., None], colours[index], FAINT).astype(np.uint8)


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
        self._figures: dict[int, str] = {}
        """the confidences that the panel shows, by face: the tags beside the faces show the same"""

    def draw(
        self, image: np.ndarray, faces: Sequence, timestamp_ms: int | None = None, caption: str = ""
    ) -> np.ndarray:
        """Return the picture to show of an image (height, width, 3) uint8 BGR and its `FaceResult`s.

        With a timestamp the panel shows the main face's last ten seconds, without (still pictures) the
        caption. The array is reused by the next call.
        """
        self._last = image, timestamp_ms, caption
        self.canvas.begin(image, self.mirror)
        timed = timestamp_ms is not None
        if timed:
            main = faces[0] if faces else None
            moment = (main.confidence, self.colour_of(main.emotion)) if main else (0.0, FAINT)
            self.timeline.add(timestamp_ms, *moment)
        shown = (image.shape, timed, caption, [(face.face, face.emotion) for face in faces])
        if shown != self._shown or not timed or not 0 <= timestamp_ms - self._shown_ms < PANEL_MS:
            self._shown, self._shown_ms = shown, timestamp_ms or 0
            self._figures = {face.face: f"{face.confidence:.0%}" for face in faces}
            self._draw_panel(faces, timed, caption)
            self.canvas.keep_panel()
        self._draw_faces(faces)
        return self.canvas.image

    def draw_again(self, faces: Sequence) -> np.ndarray:
        """Return what `draw` returned last, with these faces and as it is to be seen now."""
        image, *when = self._last
        return self.draw(image, faces, *when)

    def add_hints(self, speed: str = "", message: str = "") -> np.ndarray:
        """Add to what was drawn the way to the help, or the help, the speed and a message; return it."""
        canvas, timed = self.canvas, self._last[1] is not None
        canvas.text("h  help", PANEL - 12, 22, 12, DIM, right=True)
        foot = canvas.height - (92 if timed else 28)
        if self.show_help:
            canvas.fill(0, BARS_TOP - 12, PANEL, foot - BARS_TOP + 12, PAPER)
            for row, (key, meaning) in enumerate(item for item in HELP if not timed or item[0] != "space"):
                canvas.text(key, 12, BARS_TOP + row * 19 + 10, 13, INK, 600)
                canvas.text(meaning, 72, BARS_TOP + row * 19 + 10, 13, DIM)
        if timed:
            canvas.text(speed, PANEL - 12, canvas.height - 14, 12, DIM, right=True)
        if message:
            canvas.fill(0, foot - 18, PANEL, 20, PAPER)
            canvas.text(canvas.fit_text(message, PANEL - 24, 12), 12, foot - 4, 12, AMBER)
        return canvas.image

    def colour_of(self, emotion: str) -> tuple[int, int, int]:
        """Return the BGR colour of a class; grey for `uncertain`."""
        return self.colours.get(emotion, UNSURE)

    def _draw_panel(self, faces: Sequence, timed: bool, caption: str) -> None:
        canvas = self.canvas
        canvas.clear_panel()
        canvas.text(canvas.fit_text(self.model_name, 110, 12), 12, 22, 12, DIM)
        self._draw_main_face(faces)
        foot = canvas.height - (92 if timed else 12)
        rows = RowLayout.fit(len(self.classes), foot - BARS_TOP - 24, 25)
        self._draw_bars(rows, faces[0].probabilities if faces else None)
        self._draw_other_faces(BARS_TOP + len(self.classes) * rows.pitch + 8, foot - 24, faces)
        if timed:
            strip = self.timeline.render(round((PANEL - 24) * canvas.scale), round(44 * canvas.scale))
            canvas.paste(12, canvas.height - 82, strip)
            canvas.text("last 10 s", 12, canvas.height - 14, 12, DIM)
        else:
            canvas.text(canvas.fit_text(caption, PANEL - 24, 12), 12, canvas.height - 12, 12, DIM)

    def _draw_main_face(self, faces: Sequence) -> None:
        if not faces:
            return self.canvas.text("no face", 12, 62, 24, UNSURE, 500)
        main = faces[0]
        label = f"{main.face}  {main.emotion}" if len(faces) > 1 else main.emotion
        label, size = self.canvas.fit_label(label, 120, 24)
        self.canvas.text(label, 12, 62, size, self.colour_of(main.emotion), 600)
        self.canvas.text(self._figures[main.face], PANEL - 12, 62, 20, INK, 500, right=True)

    def _draw_bars(self, rows: RowLayout, probabilities: dict[str, float] | None) -> None:
        canvas = self.canvas
        for row, name in enumerate(self.classes):
            y, shown = BARS_TOP + row * rows.pitch, canvas.fit_text(name, PANEL - 64, rows.size)
            canvas.text(shown, 12, y + rows.size - 2, rows.size, DIM if probabilities is None else INK)
            canvas.fill(12, y + rows.bar_top, PANEL - 24, rows.bar, FAINT)
            if probabilities is not None:
                figure = f"{probabilities[name]:.0%}"
                canvas.text(figure, PANEL - 12, y + rows.size - 2, rows.size, DIM, right=True)
                length = 0 if figure == "0%" else (PANEL - 24) * probabilities[name]
                canvas.fill(12, y + rows.bar_top, length, rows.bar, self.colour_of(name))

    def _draw_other_faces(self, top: float, bottom: float, faces: Sequence) -> None:
        for y, face in zip(np.arange(top + 12, bottom, 20), faces[1:]):
            label = self.canvas.fit_text(f"{face.face}  {face.emotion}", 120, 13, 500)
            self.canvas.text(label, 12, y, 13, self.colour_of(face.emotion), 500)
            self.canvas.text(self._figures[face.face], PANEL - 12, y, 13, DIM, right=True)

    def _draw_faces(self, faces: Sequence) -> None:
        canvas, tags = self.canvas, []
        for face in faces:
            points, colour = canvas.to_pixels(face.landmarks), self.colour_of(face.emotion)
            if self.show_landmarks:
                canvas.draw_points(points)
            canvas.draw_contours(points, colour)
            tags.append((points, f"{face.face}  {face.emotion} {self._figures[face.face]}", colour))
        if len(tags) > 1:
            canvas.draw_tags(tags)


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
        self._said, self._said_until = f"saved {path.name}", time.monotonic() + 2.5
