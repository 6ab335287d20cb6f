"""MediaPipe's answer for a video's frame as arrays, without a Python object for each of its points.

MediaPipe keeps its answer in C structures, and its Python package copies them point by point into objects:
1.4 ms of a frame's 14 in which no other thread of Python can run. Here numpy reads the structures. They are
no part of MediaPipe's public interface, so only the version that was tested is read so; others are asked in
the documented way.
"""

import ctypes
import sys

import numpy as np

TESTED = "1.2.2"
"""The version of mediapipe whose structures are known."""


class AnswerReader:
    """Asks an open landmarker of MediaPipe, whose version is given, about frames of a video."""

    def __init__(self, landmarker, version: str):
        self._landmarker = landmarker
        self.direct = version == TESTED
        """whether the structures are read"""
        if self.direct:
            self._structures = sys.modules[type(landmarker).__module__]
            self._point = _fields(self._structures.landmark_c_lib.MpNormalizedLandmarkC, ("x", "y", "z"))
            self._category = _fields(self._structures.category_c_lib.MpCategoryC, ("score",))

    def detect(self, image, timestamp_ms: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return points (478, 3) float32 in fractions of width and height and blendshapes (52,), or None.

        image: a `mediapipe.Image`. Raises what MediaPipe's `detect_for_video` raises.
        """
        if not self.direct:
            result = self._landmarker.detect_for_video(image, timestamp_ms)
            return _from_objects(result) if result.face_landmarks else None
        library, answer = self._landmarker._lib, self._structures.MpFaceLandmarkerResultC()
        library.MpFaceLandmarkerDetectForVideo(
            self._landmarker._handle, image._image_ptr, None, timestamp_ms, ctypes.byref(answer)
        )
        try:
            if not answer.face_landmarks_count:
                return None
            points, categories = answer.face_landmarks[0], answer.face_blendshapes[0]
            return (
                _read(points.landmarks, points.landmarks_count, self._point),
                _read(categories.categories, categories.categories_count, self._category)[:, 0],
            )
        finally:
            library.MpFaceLandmarkerCloseResult(ctypes.byref(answer))


def _from_objects(result) -> tuple[np.ndarray, np.ndarray]:
    points = np.array([(point.x, point.y, point.z) for point in result.face_landmarks[0]], np.float32)
    return points, np.array([shape.score for shape in result.face_blendshapes[0]], np.float32)


def _fields(structure: type[ctypes.Structure], names: tuple[str, ...]) -> np.dtype:
    """Return the type of some float fields of a C structure, in their places."""
    offsets = [getattr(structure, name).offset for name in names]
    layout = {"names": names, "formats": ["<f4"] * len(names), "offsets": offsets}
    return np.dtype(layout | {"itemsize": ctypes.sizeof(structure)})


def _read(pointer, count: int, fields: np.dtype) -> np.ndarray:
    """Return a copy (count, fields) float32 of the fields of some structures in a row."""
    memory = ctypes.string_at(pointer, count * fields.itemsize)
    rows = np.frombuffer(memory, fields)
    return np.stack([rows[name] for name in fields.names], axis=1)
