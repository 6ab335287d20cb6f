"""Probabilities frame by frame -> a calm label for each face: smoothing in time, hysteresis. numpy only.

Times are milliseconds of the source, so a clip gives the same labels at any speed it is worked through.
"""

import math
from collections.abc import Sequence

import numpy as np

UNCERTAIN = "uncertain"
"""The label when no class reaches the model's threshold."""
TIME_CONSTANT_MS = 300.0
"""A step in the raw probabilities is 63% through after this time."""
MARGIN = 0.1
"""How far another class must lead before the label changes, or the label's own fall below the threshold."""
RESET_MS = 500
"""A face unseen for longer starts its smoothing afresh: what it felt before says little."""


class EmotionSmoother:
    """Exponential smoothing with hysteresis for one face; the same response in time at any frame rate.

    The first probabilities count as they are: a still picture is labelled by a smoother of its own.
    """

    def __init__(
        self,
        classes: Sequence[str],
        threshold: float = 0.0,
        time_constant_ms: float = TIME_CONSTANT_MS,
        margin: float = MARGIN,
    ):
        self._classes, self._threshold = tuple(classes), threshold
        self._time_constant_ms, self._margin = time_constant_ms, margin
        self.probabilities: np.ndarray | None = None
        self.timestamp_ms = 0
        """when the face was last seen"""
        self._label: int | None = None

    def update(self, probabilities: np.ndarray, timestamp_ms: int) -> tuple[str, float]:
        """Take the probabilities (classes,) of a moment; return the label and its smoothed probability."""
        if self.probabilities is None or self._time_constant_ms <= 0:
            self.probabilities = probabilities
        else:
            keep = math.exp((self.timestamp_ms - timestamp_ms) / self._time_constant_ms)
            self.probabilities = (keep * self.probabilities + (1 - keep) * probabilities).astype(np.float32)
        self.timestamp_ms = timestamp_ms
        self._label = self._next_label(int(self.probabilities.argmax()))
        if self._label is None:
            return UNCERTAIN, float(self.probabilities.max())
        return self._classes[self._label], float(self.probabilities[self._label])

    def _next_label(self, best: int) -> int | None:
        smoothed, label = self.probabilities, self._label
        if label is not None and smoothed[label] >= max(smoothed[best], self._threshold) - self._margin:
            return label
        return best if smoothed[best] >= self._threshold else None


class FaceSmoothers:
    """A smoother for each person of a video; time must not go back."""

    def __init__(
        self, classes: Sequence[str], threshold: float = 0.0, time_constant_ms: float = TIME_CONSTANT_MS
    ):
        self._new = lambda: EmotionSmoother(classes, threshold, time_constant_ms)
        self._smoothers: dict[int, EmotionSmoother] = {}

    def of_person(self, person: int, timestamp_ms: int) -> EmotionSmoother:
        """Return a person's smoother; a new one for somebody unseen for longer than `RESET_MS`."""
        self._smoothers = {
            known: smoother
            for known, smoother in self._smoothers.items()
            if timestamp_ms - smoother.timestamp_ms <= RESET_MS
        }
        return self._smoothers.setdefault(person, self._new())
