"""The frame with light face contours and a panel beside it, drawn into one array. Owns the drawing.

The panel extends the picture instead of covering it, so no text ever hides a face. Its coordinates are
design units: 200 wide, one unit being one pixel at 640 x 480 and 2.25 at 1080p.
"""

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...faces.features import MESH_POINTS
from ...faces.images import import_cv2

_NAMES = "happy sad fear neutral disgust anger surprise contempt spare".split()
_RGB = "F0E442 56B4E9 D55E00 E8E8E8 AAFF88 BB00FF BB7755 557799 9955CC".split()
COLOURS = {name: tuple(bytes.fromhex(rgb)[::-1]) for name, rgb in zip(_NAMES, _RGB)}
"""BGR of the known emotions, and one more: nine classes have nine colours.

They begin with those of Okabe and Ito (2008); the others were searched for so that any two, the grey of
`uncertain` and the panel's paper lie 19 apart in CIELAB for the three kinds of colour blindness too, and
stand out from the paper by a contrast of 3.6 and more.
"""
UNSURE = (150, 150, 150)
INK, DIM, FAINT, PAPER, AMBER = (240, 240, 240), (165, 160, 155), (62, 56, 52), (32, 27, 24), (60, 180, 250)

CONTOURS = tuple(
    np.array([int(point) for point in points.split()])
    for points in (
        "10 338 297 332 284 251 389 356 454 323 361 288 397 365 379 378 400 377 "  # oval
        "152 148 176 149 150 136 172 58 132 93 234 127 162 21 54 103 67 109",
        "61 146 91 181 84 17 314 405 321 375 291 409 270 269 267 0 37 39 40 185",  # lips
        "78 95 88 178 87 14 317 402 318 324 308 415 310 311 312 13 82 81 80 191",
        "263 249 390 373 374 380 381 382 362 398 384 385 386 387 388 466",  # eyes
        "33 7 163 144 145 153 154 155 133 173 157 158 159 160 161 246",
        "276 283 282 295 285 336 296 334 293 300",  # brows
        "46 53 52 65 55 107 66 105 63 70",
    )
)
"""Closed loops of mesh points: the face contours of MediaPipe's FaceLandmarksConnections."""
_CONTOUR_POINTS = np.concatenate(CONTOURS)
_CONTOUR_SPANS = tuple(itertools.pairwise(itertools.accumulate((len(loop) for loop in CONTOURS), initial=0)))

PANEL = 200


class Canvas:
    """A frame and a panel at its right, drawn into one reused array; `image` lasts until the next `begin`."""

    def __init__(self):
        self._cv2 = import_cv2()
        self._font = self._cv2.FontFace("sans")
        self._shape = None

    def begin(self, frame_bgr: np.ndarray, mirror: bool = False) -> None:
        """Start a picture with a frame (height, width, 3) uint8 on it; small ones are enlarged to 360 pixels.

        The panel is as it was when `keep_panel` was called last, or empty.
        """
        if frame_bgr.shape != self._shape:
            self._lay_out(frame_bgr.shape)
        self._mirror = mirror
        if frame_bgr.shape[:2] != self._picture.shape[:2]:
            size = self._picture.shape[1::-1]
            frame_bgr = self._cv2.resize(frame_bgr, size, interpolation=self._cv2.INTER_CUBIC)
        if mirror:
            self._cv2.flip(frame_bgr, 1, self._picture)
        else:
            np.copyto(self._picture, frame_bgr)
        np.copyto(self._panel, self._kept)

    def clear_panel(self) -> None:
        """Empty the panel."""
        np.copyto(self._panel, self._blank)

    def keep_panel(self) -> None:
        """Let the panel be as it is now whenever a picture begins."""
        np.copyto(self._kept, self._panel)

    def _lay_out(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        zoom = max(1.0, min(360 / min(shape[:2]), 1600 / max(shape[:2])))
        height, width = round(shape[0] * zoom), round(shape[1] * zoom)
        self.scale = min(max(min(height, width) / 480, 1.0), 4.0)
        whole_height, whole_width = max(height, round(300 * self.scale)), width + round(PANEL * self.scale)
        even = whole_height + whole_height % 2, whole_width + whole_width % 2  # as video codecs want it
        self.image = np.full((*even, 3), PAPER, np.uint8)
        self._picture = self.image[:height, :width]
        self._panel = self.image[:, width:]
        # Copying rows is ten times faster than filling them with a colour.
        self._blank, self._kept = self._panel.copy(), self._panel.copy()
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
        # Sixteenths of a pixel: what cv2 calls shift 4.
        sixteenths = (points.take(_CONTOUR_POINTS, axis=0) * 16).astype(np.int32)
        loops = [sixteenths[start:end] for start, end in _CONTOUR_SPANS]
        shade = tuple(0.8 * value for value in colour)  # a little darker than the label, to be light on skin
        self._cv2.polylines(
            self._picture, loops, True, shade, max(1, round(self.scale * 0.7)), self._cv2.LINE_AA, 4
        )

    def draw_points(self, points: np.ndarray, colour: tuple[int, int, int] = INK) -> None:
        """Draw the mesh points of a face, from `to_pixels`."""
        radius = round(self.scale * 0.7)
        for centre in points[:MESH_POINTS].astype(int).tolist():
            self._cv2.circle(self._picture, centre, radius, colour, self._cv2.FILLED)

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

    def _put(self, text: str, x: int, y: int, size_px: int, colour, weight: int) -> None:
        self._cv2.putText(self.image, drawable(text), (x, y), colour, self._font, size_px, weight)

    def _text_width(self, text: str, size_px: int, weight: int) -> int:
        return self._cv2.getTextSize((0, 0), drawable(text), (0, 0), self._font, size_px, weight)[2]

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


@lru_cache(1024)
def drawable(text: str) -> str:
    """Return text as it can be drawn: what OpenCV's fonts lack (Hindi, Tamil, Thai...) in Latin letters.

    Names may hold bytes that are no characters, on which OpenCV 5 crashes: they become question marks.
    """
    text = text.encode("utf-8", "replace").decode()
    return "".join(map(_spell, text)) if any(map(_is_missing, text)) else text


@lru_cache(1024)
def _is_missing(character: str) -> bool:
    """Tell whether a character is drawn as a question mark for want of another."""
    if character.isascii():
        return False
    cv2, pictures = import_cv2(), np.zeros((2, 24, 40), np.uint8)
    for picture, text in zip(pictures, (character, "?")):
        cv2.putText(picture, text, (4, 18), 255, cv2.FontFace("sans"), 16)
    return np.array_equal(*pictures)


def _spell(character: str) -> str:
    """Return a character by its Unicode name: `DEVANAGARI VOWEL SIGN U` becomes u, `THAI ... DO DEK` do."""
    words = unicodedata.name(character, "").split()
    if not _is_missing(character) or "VIRAMA" in words:
        return "" if "VIRAMA" in words else character
    kind = next((word for word in ("LETTER", "SIGN", "CHARACTER") if word in words), None)
    if kind is None:
        return "?"
    sound = words[words.index(kind) + 1 :]
    return (sound[1] if sound[0] == "SARA" else sound[0]).lower()


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
