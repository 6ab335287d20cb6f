"""How a head is turned: yaw, pitch and roll, from the landmarks."""

from functools import cache
from pathlib import Path

import numpy as np

from .features import MESH_POINTS, fit_similarity

POSE = ("yaw", "pitch", "roll")
CANONICAL_FILE = Path(__file__).with_name("canonical_face.csv")
"""x, y, z (right, down, away from the camera; cm) of MediaPipe's canonical face, which looks straight ahead:
from the geometry metadata in `face_landmarker.task` (Google, Apache-2.0)."""


@cache
def _canonical_face() -> np.ndarray:
    return np.loadtxt(CANONICAL_FILE, delimiter=",")


def head_pose(landmarks: np.ndarray) -> np.ndarray:
    """Return yaw, pitch and roll (n, 3) in degrees of landmarks (n, 468 or more, 3).

    How the head is turned against MediaPipe's canonical face, by the similarity that lays it on that:
    Tait-Bryan angles about the head's own axes y, x and z, in this order (scipy's `as_euler("YXZ")`). Signs
    are those of Google's ML Kit ("Face detection concepts"): positive is a face that looks to the right side
    of the picture (yaw), upward (pitch), and leans counter-clockwise (roll). Yaw and roll lie within 180
    degrees of 0, pitch within 90.
    """
    onto_canonical, _ = fit_similarity(landmarks[:, :MESH_POINTS].astype(np.float64), _canonical_face())
    head = onto_canonical.transpose(0, 2, 1)
    yaw = np.arctan2(head[:, 0, 2], head[:, 2, 2])
    pitch = np.arcsin(np.clip(-head[:, 1, 2], -1, 1))
    roll = np.arctan2(head[:, 1, 0], head[:, 1, 1])
    return -np.degrees(np.column_stack([yaw, pitch, roll]))
