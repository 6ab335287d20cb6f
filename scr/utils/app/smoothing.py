"""Probabilities frame by frame -> a calm label for each face: smoothing in time, hysteresis. numpy only.

Times are milliseconds of the source, so a clip gives the same labels at any speed it is worked through.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..faces.features import face_box

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


@dataclass(frozen=True)
class FaceResult:
    """What is known of one face on one frame.

    landmarks (478, 3) float32 in image widths, box (x, y, width, height) in pixels within the frame,
    probabilities (classes,) float32; confidence is that of the emotion, or of the likeliest class if the
    emotion is `uncertain`.
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
        """Take the probabilities (classes,) of a moment; return the label and its smoothed probability."""
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
    seen_ms: int


class FaceTracker:
    """Numbers the faces of a stream in the order they come, and smooths each person's probabilities."""

    def __init__(
        self, classes: Sequence[str], threshold: float = 0.0, time_constant_ms: float = TIME_CONSTANT_MS
    ):
        self._new_smoother = lambda: EmotionSmoother(classes, threshold, time_constant_ms)
        self._tracks: dict[int | None, _Track] = {}
        """by person"""
        self.faces_seen = 0

    def update(
        self,
        people: Sequence[int | None],
        landmarks: Sequence[np.ndarray],
        probabilities: np.ndarray,
        timestamp_ms: int,
        frame_shape: tuple[int, ...],
    ) -> list[FaceResult]:
        """Return a reading for each face of a frame, the longest known first.

        people: whose faces they are (`Face.person`), no two the same; landmarks: (478, 3) each;
        probabilities: (faces, classes), raw; timestamps must not go back.
        """
        self._tracks = {
            person: track
            for person, track in self._tracks.items()
            if timestamp_ms - track.seen_ms <= FORGET_MS
        }
        readings = []
        for person, points, row in zip(people, landmarks, probabilities):
            track = self._track_of(person, timestamp_ms)
            emotion, confidence = track.smoother.update(row, timestamp_ms)
            box = box_px(face_box(points).tolist(), frame_shape)
            readings.append(
                FaceResult(track.face, points, box, emotion, confidence, track.smoother.probabilities)
            )
        return sorted(readings, key=lambda reading: reading.face)

    def _track_of(self, person: int | None, timestamp_ms: int) -> _Track:
        """Return a person's track, its smoothing begun afresh if the person was away for long."""
        if person not in self._tracks:
            self._tracks[person] = _Track(self.faces_seen, self._new_smoother(), timestamp_ms)
            self.faces_seen += 1
        track = self._tracks[person]
        if timestamp_ms - track.seen_ms > RESET_MS:
            track.smoother.reset()
        track.seen_ms = timestamp_ms
        return track


def box_px(box: Sequence[float], frame_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the part of a box (x, y, width, height in image widths) within the frame, in whole pixels."""
    height, width = frame_shape[:2]
    left, right = (min(max(round(x * width), 0), width) for x in (box[0], box[0] + box[2]))
    top, bottom = (min(max(round(y * width), 0), height) for y in (box[1], box[1] + box[3]))
    return left, top, right - left, bottom - top


def read_picture(
    classes: Sequence[str],
    landmarks: Sequence[np.ndarray],
    probabilities: np.ndarray,
    frame_shape: tuple[int, ...],
) -> list[FaceResult]:
    """Return a reading for each face of a still picture: unsmoothed, its emotion the likeliest class."""
    boxes = [box_px(face_box(points).tolist(), frame_shape) for points in landmarks]
    return [
        FaceResult(face, points, box, classes[int(row.argmax())], float(row.max()), row)
        for face, (points, box, row) in enumerate(zip(landmarks, boxes, probabilities))
    ]
