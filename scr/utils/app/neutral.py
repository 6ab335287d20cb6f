"""A person's neutral face, taken live: a second of it, and whether it was at rest. numpy only."""

import numpy as np

AT_REST = (
    ((44, 45), 0.45, "you smile"),
    ((25,), 0.20, "your mouth is open"),
    ((48, 49), 0.15, "your upper lip is up"),
    ((30, 31), 0.20, "your mouth turns down"),
    ((46, 47), 0.20, "your lips are stretched"),
    ((21, 22), 0.12, "your eyes are wide"),
    ((1, 2), 0.55, "you frown"),
)
"""Blendshapes by number (left, right), the most that a face at rest has of them, and what it does with more.

Of 123 neutral faces of London, JAFFE and KDEF the 99th percentiles are .40, .11, .03, .09, .08, .07 and
.47; of the happy ones, .45 is less than the median smile. Sad and angry faces are caught in part only: many
of them look so at rest.
"""


class NeutralTaker:
    """Collects a second of one face's landmarks and blendshapes."""

    TAKE_MS = 1000
    LEAST_FRAMES = 5
    """A slow camera is given longer than a second."""

    def __init__(self):
        self._landmarks, self._blendshapes, self._start_ms = [], [], 0

    def add(self, landmarks: np.ndarray, blendshapes: np.ndarray, timestamp_ms: int) -> bool:
        """Take a frame's landmarks (478, 3) and blendshapes (52,); return whether that is enough."""
        if not self._landmarks:
            self._start_ms = timestamp_ms
        self._landmarks.append(landmarks)
        self._blendshapes.append(blendshapes)
        return timestamp_ms - self._start_ms >= self.TAKE_MS and len(self._landmarks) >= self.LEAST_FRAMES

    def taken(self) -> tuple[np.ndarray, np.ndarray]:
        """Return landmarks (n, 478, 3) and blendshapes (n, 52) of the frames taken."""
        return np.stack(self._landmarks), np.stack(self._blendshapes)


def find_movement(blendshapes: np.ndarray) -> str:
    """Return what a face plainly does by its blendshapes (n, 52), or "" if it is at rest."""
    mean = blendshapes.mean(axis=0)
    return next((doing for which, most, doing in AT_REST if mean[list(which)].mean() > most), "")
