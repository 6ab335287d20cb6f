"""Probabilities frame by frame -> a calm label for each face: who is who, smoothing in time, hysteresis. numpy only.

Times are milliseconds of the source, so a clip gives the same labels at any speed it is worked through.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.faces.features import face_box

UNCERTAIN = "uncertain"
"""The label when no class is sure; never in the rows of still pictures."""

TIME_CONSTANT_MS = 300.0
"""A step in the raw probabilities is 63% through after this time."""
MARGIN = 0.1
"""How far another class must lead before the label changes, or the label's own fall below the threshold."""
RESET_MS = 500
"""A face unseen for longer starts its smoothing afresh: what it felt before says little."""
FORGET_MS = 2000
"""A face unseen for longer gets a new number when it comes back."""
MAX_JUMP = 1.0
"""How far a face may move between two sightings and stay the same, in sides of its box."""


@dataclass(frozen=True)
class Reading:
    """What is known of one face on one frame.

    landmarks (478, 3) float32 in image widths, box (x, y, width, height) in pixels within the frame, probabilities
    (classes,) float32; confidence is that of the emotion, or of the likeliest class if the emotion is `uncertain`.
    """

    face: int
    landmarks: np.ndarray
    box: tuple[int, int, int, int]
    emotion: str
    confidence: float
    probabilities: np.ndarray


class EmotionSmoother:
    """Exponential smoothing with hysteresis for one face; the same response in time at any frame rate."""

    def __init__(
        self,
        classes: Sequence[str],
        threshold: float = 0.0,
        time_constant_ms: float = TIME_CONSTANT_MS,
        margin: float = MARGIN,
    ):
        self._classes, self._threshold = tuple(classes), threshold
        self._time_constant_ms, self._margin = time_constant_ms, margin
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next probabilities count as they are."""
        self.probabilities: np.ndarray | None = None
        self._label: int | None = None
        self._timestamp_ms = 0

    def update(self, probabilities: np.ndarray, timestamp_ms: int) -> tuple[str, float]:
        """Take the probabilities (classes,) of a moment; return the label shown and its smoothed probability."""
        if self.probabilities is None or self._time_constant_ms <= 0:
            self.probabilities = probabilities
        else:
            keep = math.exp((self._timestamp_ms - timestamp_ms) / self._time_constant_ms)
            self.probabilities = (keep * self.probabilities + (1 - keep) * probabilities).astype(np.float32)
        self._timestamp_ms = timestamp_ms
        self._label = self._next_label(int(self.probabilities.argmax()))
        if self._label is None:
            return UNCERTAIN, float(self.probabilities.max())
        return self._classes[self._label], float(self.probabilities[self._label])

    def _next_label(self, best: int) -> int | None:
        smoothed, label = self.probabilities, self._label
        if label is not None and smoothed[label] >= max(smoothed[best], self._threshold) - self._margin:
            return label
        return best if smoothed[best] >= self._threshold else None


@dataclass
class _Track:
    face: int
    smoother: EmotionSmoother
    box: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    seen_ms: int = 0


class FaceTracker:
    """Gives each face of a stream a number that survives a short occlusion, and smooths its probabilities."""

    def __init__(
        self, classes: Sequence[str], threshold: float = 0.0, time_constant_ms: float = TIME_CONSTANT_MS
    ):
        self._new_smoother = lambda: EmotionSmoother(classes, threshold, time_constant_ms)
        self._tracks: list[_Track] = []
        self.faces_seen = 0

    def update(
        self,
        landmarks: Sequence[np.ndarray],
        probabilities: np.ndarray,
        timestamp_ms: int,
        frame_shape: tuple[int, ...],
    ) -> list[Reading]:
        """Return a reading for each face of a frame, the longest known first.

        landmarks: (478, 3) each; probabilities: (faces, classes), raw; timestamps must not go back.
        """
        self._tracks = [track for track in self._tracks if timestamp_ms - track.seen_ms <= FORGET_MS]
        boxes = [
            tuple(face_box(points).tolist()) for points in landmarks
        ]  # floats: numpy is slow on four numbers
        readings = []
        for index, track in self._match(boxes).items():
            if timestamp_ms - track.seen_ms > RESET_MS:
                track.smoother.reset()
            track.box, track.seen_ms = boxes[index], timestamp_ms
            emotion, confidence = track.smoother.update(probabilities[index], timestamp_ms)
            box = box_px(boxes[index], frame_shape)
            readings.append(
                Reading(track.face, landmarks[index], box, emotion, confidence, track.smoother.probabilities)
            )
        return sorted(readings, key=lambda reading: reading.face)

    def _match(self, boxes: Sequence[tuple[float, ...]]) -> dict[int, _Track]:
        """Return the track of each box, the nearest pairs first; boxes that are left start tracks of their own."""
        pairs = sorted(
            (distance, number, index)
            for number, track in enumerate(self._tracks)
            for index, box in enumerate(boxes)
            if (distance := _distance(track.box, box)) <= MAX_JUMP
        )
        matched, taken = {}, set()
        for _, number, index in pairs:
            if index not in matched and number not in taken:
                matched[index] = self._tracks[number]
                taken.add(number)
        for index in range(len(boxes)):
            if index not in matched:
                matched[index] = _Track(self.faces_seen, self._new_smoother())
                self._tracks.append(matched[index])
                self.faces_seen += 1
        return matched


def _distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the distance of two boxes' centres, in sides of the larger."""
    x, y = one[0] - other[0] + (one[2] - other[2]) / 2, one[1] - other[1] + (one[3] - other[3]) / 2
    return math.hypot(x, y) / max(*one[2:], *other[2:], 1e-6)


def box_px(box: Sequence[float], frame_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the part of a box (x, y, width, height in image widths) that lies within the frame, in whole pixels."""
    height, width = frame_shape[:2]
    left, right = (min(max(round(x * width), 0), width) for x in (box[0], box[0] + box[2]))
    top, bottom = (min(max(round(y * width), 0), height) for y in (box[1], box[1] + box[3]))
    return left, top, right - left, bottom - top


def read_picture(
    classes: Sequence[str],
    landmarks: Sequence[np.ndarray],
    probabilities: np.ndarray,
    frame_shape: tuple[int, ...],
) -> list[Reading]:
    """Return a reading for each face of a still picture: unsmoothed, the emotion always the likeliest class."""
    boxes = [box_px(face_box(points).tolist(), frame_shape) for points in landmarks]
    return [
        Reading(face, points, box, classes[int(row.argmax())], float(row.max()), row)
        for face, (points, box, row) in enumerate(zip(landmarks, boxes, probabilities))
    ]
