"""Pictures and frames -> faces: YuNet finds them, MediaPipe's networks read each one upright."""

import sys
from dataclasses import dataclass

import numpy as np

from ..config import UserError
from .detection import FaceDetector
from .features import face_box
from .images import brighten
from .mesh import FaceMesh, Mesh, overlap
from .tracking import Tracker


@dataclass(frozen=True)
class Face:
    """One face: landmarks (478, 3) float32 in image widths, blendshapes (52,) float32 in [0, 1].

    In videos `person` tells people apart: the same number on two frames is the same person.
    """

    landmarks: np.ndarray
    blendshapes: np.ndarray
    person: int | None = None

    @property
    def area(self) -> float:
        """The bounding box's area, in squared image widths."""
        return float(np.prod(face_box(self.landmarks)[2:]))


class FaceLandmarker:
    """Faces with their landmarks, the largest first, on frames of a video or on stills."""

    def __init__(self, video: bool = False, max_faces: int | None = 1):
        """`video`: faces are followed from frame to frame and smoothed; `max_faces`: None for all."""
        self._max_faces = max_faces or sys.maxsize
        self._detector, self._mesh = FaceDetector(), FaceMesh()
        if video:
            self._tracker = Tracker(self._detector, self._mesh, self._max_faces)

    def detect(self, frame_bgr: np.ndarray, timestamp_ms: int) -> list[Face]:
        """Return the faces on a video's frame (height, width, 3) uint8, the largest first.

        Timestamps must not go back. Raises UserError for another shape or type, RuntimeError if a network
        fails.
        """
        _check(frame_bgr)
        people = self._tracker.track(brighten(frame_bgr), timestamp_ms)
        return _largest_first(
            [_face_of(person.reading, frame_bgr.shape[1], person.number) for person in people]
        )

    def detect_picture(self, frame_bgr: np.ndarray) -> list[Face]:
        """Return the faces on a still picture (height, width, 3) uint8, the largest first.

        Raises UserError for an array of another shape or type, RuntimeError if a network fails.
        """
        _check(frame_bgr)
        frame_bgr = brighten(frame_bgr)
        readings: list[Mesh] = []
        for detection in self._detector.detect(frame_bgr):
            reading = self._mesh.find(frame_bgr, detection)
            if reading is None or any(overlap(reading.region, other.region) for other in readings):
                continue
            readings.append(reading)
            if len(readings) == self._max_faces:
                break
        return _largest_first([_face_of(reading, frame_bgr.shape[1]) for reading in readings])


def _check(frame_bgr: np.ndarray) -> None:
    shape = frame_bgr.shape
    if len(shape) != 3 or shape[2] != 3 or frame_bgr.dtype != np.uint8 or 0 in shape:
        raise UserError(f"expected pixels (height, width, 3) uint8, got {shape} {frame_bgr.dtype}")


def _face_of(reading: Mesh, width: int, person: int | None = None) -> Face:
    return Face((reading.points / np.float32(width)).astype(np.float32), reading.blendshapes, person)


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -face.area)
