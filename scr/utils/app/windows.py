"""What one sees: the frame with light face contours, and a panel beside it. Owns cv2's windows and drawing.

The panel extends the picture instead of covering it, so no text ever hides a face. Its coordinates are
design units: 200 wide, one unit being one pixel at 640 x 480 and 2.25 at 1080p.
"""

import ctypes
import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..faces.features import MESH_POINTS
from ..faces.images import import_cv2

COLOURS = {
    name: tuple(int(rgb[i : i + 2], 16) for i in (4, 2, 0))
    for name, rgb in {
        "happy": "F0E442",
        "sad": "56B4E9",
        "fear": "D55E00",
        "neutral": "E8E8E8",
        "disgust": "AAFF88",
        "anger": "BB00FF",
        "surprise": "BB7755",
        "contempt": "557799",
        "": "9955CC",
    }.items()
}
"""BGR of the known emotions, and one more: nine classes have nine colours.

They begin with those of Okabe and Ito (2008); the others were searched for so that any two, the grey of
`uncertain` and the panel's paper lie 19 apart in CIELAB for the three kinds of colour blindness too, and
stand out from the paper by a contrast of 3.6 and more.
"""
UNSURE = (150, 150, 150)
INK, DIM, FAINT, PAPER, AMBER = (240, 240, 240), (165, 160, 155), (62, 56, 52), (32, 27, 24), (60, 180, 250)

CONTOURS = tuple(
    np.array(points)
    for points in (
        (
            10,
            338,
            297,
            332,
            284,
            251,
            389,
            356,
            454,
            323,
            361,
            288,
            397,
            365,
            379,
            378,
            400,
            377,
            152,
            148,
            176,
            149,
            150,
            136,
            172,
            58,
            132,
            93,
            234,
            127,
            162,
            21,
            54,
            103,
            67,
            109,
        ),  # oval
        (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),  # lips
        (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),  # eyes
        (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
        (276, 283, 282, 295, 285, 336, 296, 334, 293, 300),  # brows
        (46, 53, 52, 65, 55, 107, 66, 105, 63, 70),
    )
)
"""Closed loops of mesh points: the face contours of MediaPipe's FaceLandmarksConnections."""
_CONTOUR_POINTS = np.concatenate(CONTOURS)
_CONTOUR_SPANS = tuple(itertools.pairwise(itertools.accumulate((len(loop) for loop in CONTOURS), initial=0)))

QUIT_KEYS = ("q", "esc", "closed")
"""Of `Window.read_key`."""

PANEL = 200
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


class Canvas:
    """A frame and a panel at its right, drawn into one reused array; `image` lasts until the next `begin`."""

    def __init__(self):
        self._cv2 = import_cv2()
        self._font = self._cv2.FontFace("sans")
        self._shape = None
        self._written = lru_cache(256)(self._write)

    def begin(self, frame_bgr: np.ndarray, mirror: bool = False, keep_panel: bool = False) -> None:
        """Start a picture with a frame (height, width, 3) uint8 on it; small ones are enlarged to 360 pixels.

        With `keep_panel` what was written into the panel stays, unless the frame size has changed.
        """
        if frame_bgr.shape != self._shape:
            self._lay_out(frame_bgr.shape)
        self._mirror = mirror
        if frame_bgr.shape[:2] != self._picture.shape[:2]:
            frame_bgr = self._cv2.resize(
                frame_bgr, self._picture.shape[1::-1], interpolation=self._cv2.INTER_CUBIC
            )
        if mirror:
            self._cv2.flip(frame_bgr, 1, self._picture)
        else:
            np.copyto(self._picture, frame_bgr)
        if not keep_panel:
            self.clear_panel()

    def clear_panel(self) -> None:
        """Empty the panel."""
        np.copyto(self._panel, self._blank)

    def _lay_out(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        zoom = max(1.0, min(360 / min(shape[:2]), 1600 / max(shape[:2])))
        height, width = round(shape[0] * zoom), round(shape[1] * zoom)
        self.scale = min(max(min(height, width) / 480, 1.0), 4.0)
        whole_height, whole_width = max(height, round(300 * self.scale)), width + round(PANEL * self.scale)
        # Even sides, which video codecs want.
        self.image = np.full(
            (whole_height + whole_height % 2, whole_width + whole_width % 2, 3), PAPER, np.uint8
        )
        self._picture = self.image[:height, :width]
        self._panel = self.image[:, width:]
        self._blank = self._panel.copy()  # copying rows is ten times faster than filling them with a colour
        self.height = self.image.shape[0] / self.scale
        """of the panel, in design units"""

    def to_pixels(self, landmarks: np.ndarray) -> np.ndarray:
        """Return where landmarks (points, 3) in image widths lie on the picture: (points, 2) pixels."""
        points = landmarks[:, :2] * self._picture.shape[1]
        if self._mirror:
            points[:, 0] = self._picture.shape[1] - 1 - points[:, 0]
        return points

    def draw_contours(self, points: np.ndarray, colour: tuple[int, int, int]) -> None:
        """Draw the outlines of oval, eyes, brows and lips of a face, from `to_pixels`, in thin lines."""
        sixteenths = (points.take(_CONTOUR_POINTS, axis=0) * 16).astype(
            np.int32
        )  # of a pixel: what cv2 calls shift 4
        loops = [sixteenths[start:end] for start, end in _CONTOUR_SPANS]
        shade = tuple(0.8 * value for value in colour)  # a little darker than the label, to be light on skin
        self._cv2.polylines(
            self._picture, loops, True, shade, max(1, round(self.scale * 0.7)), self._cv2.LINE_AA, 4
        )

    def draw_points(self, points: np.ndarray, colour: tuple[int, int, int] = INK) -> None:
        """Draw the mesh points of a face, from `to_pixels`."""
        size = max(1, round(self.scale * 1.4))
        height, width = self._picture.shape[:2]
        x, y = points[:MESH_POINTS].astype(int).T
        for right in range(size):
            for down in range(size):
                inside = (x + right >= 0) & (x + right < width) & (y + down >= 0) & (y + down < height)
                self._picture[y[inside] + down, x[inside] + right] = colour

    def draw_tags(self, tags: Sequence[tuple[np.ndarray, str, tuple[int, int, int]]]) -> None:
        """Write a text beside each face (points, text, colour), never over a face or another tag."""
        height, width = self._picture.shape[:2]
        taken = [(*points.min(axis=0), *points.max(axis=0)) for points, _, _ in tags]
        size, gap = round(15 * self.scale), round(6 * self.scale)
        for (left, top, right, bottom), (_, text, colour) in zip(list(taken), tags):
            wide, tall = self._text_width(text, size, 600) + 2 * gap, size + gap
            middle_x, middle_y = (left + right - wide) / 2, (top + bottom - tall) / 2
            places = (
                (middle_x, top - tall - gap),
                (middle_x, bottom + gap),
                (right + gap, middle_y),
                (left - wide - gap, middle_y),
            )
            for x, y in ((round(x), round(y)) for x, y in places):
                free = all(x + wide <= a or x >= c or y + tall <= b or y >= d for a, b, c, d in taken)
                if free and x >= 0 and y >= 0 and x + wide <= width and y + tall <= height:
                    self._picture[y : y + tall, x : x + wide] = PAPER
                    self._put(text, x + gap, y + tall - gap, size, colour, 600)
                    taken.append((x, y, x + wide, y + tall))
                    break

    def text(
        self,
        text: str,
        x: float,
        y: float,
        size: float = 14,
        colour: tuple[int, int, int] = INK,
        weight: int = 400,
        right: bool = False,
    ) -> None:
        """Write into the panel, in design units; y is the base line, x the left or the `right` end."""
        size_px = round(size * self.scale)
        x_px = self._picture.shape[1] + round(x * self.scale)
        if right:
            x_px -= self._text_width(text, size_px, weight)
        self._put(text, x_px, round(y * self.scale), size_px, colour, weight)

    def figure(
        self,
        text: str,
        x: float,
        y: float,
        width: float,
        size: float = 14,
        colour: tuple[int, int, int] = INK,
        weight: int = 400,
        right: bool = False,
    ) -> None:
        """Write into the panel as `text` does, over what the same call wrote before: at most `width` units.

        What was written is kept and copied: figures that change ten times a second come back as often.
        """
        size_px, width_px = round(size * self.scale), round(width * self.scale)
        picture = self._written(text, width_px, size_px, colour, weight, right)
        left = self._picture.shape[1] + round(x * self.scale) - (width_px if right else 0)
        top = round(y * self.scale) - size_px
        self.image[top : top + picture.shape[0], left : left + width_px] = picture

    def _write(
        self, text: str, width_px: int, size_px: int, colour: tuple[int, int, int], weight: int, right: bool
    ) -> np.ndarray:
        picture = np.full(
            (round(1.3 * size_px), width_px, 3), PAPER, np.uint8
        )  # base line at `size_px`, room for a g below
        x = width_px - self._text_width(text, size_px, weight) if right else 0
        self._cv2.putText(picture, _drawable(text), (x, size_px), colour, self._font, size_px, weight)
        return picture

    def _put(
        self, text: str, x: int, y: int, size_px: int, colour: tuple[int, int, int], weight: int
    ) -> None:
        self._cv2.putText(self.image, _drawable(text), (x, y), colour, self._font, size_px, weight)

    def _text_width(self, text: str, size_px: int, weight: int) -> int:
        return self._cv2.getTextSize((0, 0), _drawable(text), (0, 0), self._font, size_px, weight)[2]

    def fit_text(self, text: str, width: float, size: float = 14, weight: int = 400) -> str:
        """Return the text, cut to a width in design units."""
        size_px = round(size * self.scale)
        if self._text_width(text, size_px, weight) <= width * self.scale:
            return text
        while text and self._text_width(text + "...", size_px, weight) > width * self.scale:
            text = text[:-1]
        return text + "..."

    def fit_label(self, text: str, width: float, size: int, weight: int = 600) -> tuple[str, int]:
        """Return the text and the size at which it fits a width in design units: smaller first, then cut."""
        for smaller in (size, size * 3 // 4, size * 3 // 5):
            if (fitting := self.fit_text(text, width, smaller, weight)) == text:
                break
        return fitting, smaller

    def fill(self, x: float, y: float, width: float, height: float, colour: tuple[int, int, int]) -> None:
        """Fill a rectangle of the panel, in design units."""
        left = self._picture.shape[1] + round(x * self.scale)
        right = self._picture.shape[1] + round((x + width) * self.scale)
        if right > left:
            corners = (left, round(y * self.scale)), (right - 1, round((y + height) * self.scale) - 1)
            self._cv2.rectangle(self.image, *corners, colour, self._cv2.FILLED)

    def paste(self, x: float, y: float, picture: np.ndarray) -> None:
        """Put a picture (height, width, 3) of device pixels into the panel, its corner in design units."""
        left, top = round(x * self.scale), round(y * self.scale)
        self._panel[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def _drawable(text: str) -> str:
    """Return text without what is no character: names may hold such bytes, and OpenCV 5 crashes on them."""
    return text.encode("utf-8", "replace").decode()


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


def class_colours(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return the BGR colour of each class: known emotions keep theirs, others take what is left, in order."""
    free = iter([colour for name, colour in COLOURS.items() if name not in classes])
    return {name: COLOURS[name] if name in COLOURS else next(free, UNSURE) for name in classes}


@dataclass(frozen=True)
class RowLayout:
    """Where a class's name and bar stand in its row of the panel, in design units; many stand closer."""

    pitch: float
    size: int
    bar_top: float
    bar: int

    @classmethod
    def fit(cls, rows: int, room: float, pitch: float) -> "RowLayout":
        """Return the layout of some rows that have some room together and are at most `pitch` apart."""
        pitch = min(pitch, room / max(rows, 1))
        bar, gap = (4, 5) if pitch >= 25 else (4, 3) if pitch >= 18 else (2, 2)
        size = max(8, min(13, int(pitch - bar - gap + 1)))
        return cls(pitch, size, size - 2 + gap, bar)


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


def opencv_build() -> dict[str, str]:
    """Return what this OpenCV was built with, by the names of its own report (`GUI`, `FFMPEG`...)."""
    facts = (line.partition(":") for line in import_cv2().getBuildInformation().splitlines())
    return {name.strip(): " ".join(value.split()) for name, colon, value in facts if colon}


def display_problem() -> str:
    """Return why no window can be opened, or "". Without a display, cv2.imshow aborts the process."""
    if opencv_build().get("GUI") == "NONE":
        return "this OpenCV is built without windows; pip uninstall opencv-python-headless"
    if sys.platform == "darwin" and "SSH_CONNECTION" in os.environ:
        return "this is an SSH session"
    if sys.platform in ("win32", "darwin"):
        return ""
    if not os.environ.get("DISPLAY"):
        if os.environ.get("WAYLAND_DISPLAY"):
            return (
                "OpenCV needs X, and this Wayland session offers none (DISPLAY is not set); install xwayland"
            )
        return "DISPLAY is not set"
    return _x_problem(os.environ["DISPLAY"])


def _x_problem(display: str) -> str:
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return "libxcb is missing; on Debian or Ubuntu run: apt-get install libxcb1"
    xcb.xcb_connect.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(xcb.xcb_connect(None, None))
    refused = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    return f"the X server {display} does not answer" if refused else ""


class Window:
    """A window that shows pictures and reads keys; check `display_problem` before."""

    def __init__(self, title: str = "Facial emotion recognition"):
        if sys.platform.startswith("linux"):
            os.environ.setdefault("QT_QPA_PLATFORM", "xcb")
            os.environ.setdefault(
                "QT_LOGGING_RULES", "*.warning=false"
            )  # complaints about fonts that it does not need
        self._cv2 = import_cv2()
        self._title = title
        self._opened = False

    def show(self, image: np.ndarray) -> None:
        """Show a picture (height, width, 3) uint8; the first one sizes the window, at most 1600 x 900."""
        if not self._opened:
            flags = self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO | self._cv2.WINDOW_GUI_NORMAL
            self._cv2.namedWindow(self._title, flags)
            zoom = min(1.0, 1600 / image.shape[1], 900 / image.shape[0])
            self._cv2.resizeWindow(self._title, round(image.shape[1] * zoom), round(image.shape[0] * zoom))
            self._opened = True
        self._cv2.imshow(self._title, image)

    def read_key(self, wait_s: float = 0.001) -> str:
        """Return the key pressed within `wait_s`: a character, `esc`, `space`, `closed` (window), or ""."""
        if not self._opened:
            time.sleep(wait_s)
            return ""
        code = self._cv2.waitKey(max(1, round(wait_s * 1000)))
        if self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1:
            return "closed"
        if code < 0:
            return ""
        return {27: "esc", 32: "space", 13: "space"}.get(code & 0xFF, chr(code & 0xFF).lower())

    def close(self) -> None:
        """Close the window."""
        if self._opened:
            self._cv2.destroyAllWindows()
            self._opened = False

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_) -> None:
        self.close()
