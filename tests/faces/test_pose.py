"""Yaw, pitch and roll: a face turned by known angles has these; its mirror image looks the other way."""

import cv2
import numpy as np
import pytest
from conftest import SMILE, frames_of
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial.transform import Rotation

from utils.config import MODELS
from utils.faces.features import mirror_faces, mirror_map
from utils.faces.landmarker import FaceLandmarker
from utils.faces.pose import head_pose
from utils.model.bundle import load_info


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker()


@pytest.fixture(scope="module")
def face(landmarker):
    """Return a frame of a man who looks into the camera, and his face."""
    frame = frames_of(SMILE)[40]
    return frame, landmarker.detect_picture(frame)[0]


def rotation(angles) -> np.ndarray:
    """Return the matrix of yaw, pitch and roll in degrees; x is right, y down, z away from the camera."""
    return Rotation.from_euler("YXZ", -np.asarray(angles), degrees=True).as_matrix()


def pose_of(landmarks: np.ndarray) -> np.ndarray:
    return head_pose(landmarks[None])[0]


def turn_face(picture: np.ndarray, landmarks: np.ndarray, angles) -> np.ndarray:
    """Return the picture of a face turned by yaw, pitch and roll, seen from afar.

    The picture is drawn over the mesh, and beside it over a plane that turns with it.
    """
    height, width = picture.shape[:2]
    mesh = landmarks[:468] * width
    corners = [(x, y, mesh[:, 2].max()) for x in (-9999, 9999) for y in (-9999, 9999)]
    points = np.vstack([mesh, corners])
    turned = (points - mesh.mean(axis=0)) @ rotation(angles).T + mesh.mean(axis=0)
    here = np.mgrid[:height, :width][::-1].reshape(2, -1).T + 0.5
    there = LinearNDInterpolator(turned[:, :2], points[:, :2])(here).reshape(height, width, 2) - 0.5
    return cv2.remap(picture, there.astype(np.float32), None, cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    "angles", [(0, 0, 0), (20, 0, 0), (0, 20, 0), (0, 0, 20), (-35, 15, 60), (70, -40, -170)]
)
def test_a_mesh_turned_by_known_angles_has_them(face, angles):
    landmarks = face[1].landmarks.astype(np.float64)
    upright = landmarks @ rotation(pose_of(landmarks))  # undoes its own pose
    np.testing.assert_allclose(pose_of(upright), 0, atol=0.01)
    np.testing.assert_allclose(pose_of(3 * upright @ rotation(angles).T + 0.2), angles, atol=0.01)


@pytest.mark.parametrize("axis", range(3), ids=("yaw", "pitch", "roll"))
@pytest.mark.parametrize("degrees", [-20, 20])
def test_a_picture_of_a_turned_face_shows_the_angle(landmarker, face, axis, degrees):
    """A drawn turn is read as a smaller one: shadows, hair and ears stay those of a face from the front."""
    frame, found = face
    angles = degrees * np.eye(3)[axis]
    turned = pose_of(landmarker.detect_picture(turn_face(frame, found.landmarks, angles))[0].landmarks)
    change = (turned - pose_of(found.landmarks)) * np.sign(degrees)
    if axis == 2:
        assert change[2] == pytest.approx(20, abs=1)
    else:
        assert 8 < change[axis] < 21
    assert np.abs(np.delete(change, axis)).max() < 3


def test_the_mirror_image_looks_and_leans_the_other_way(landmarker, face):
    frame, found = face
    partner = mirror_map(np.array(load_info(MODELS)["features"]["reference"]))
    tilted = found.landmarks.astype(np.float64) @ rotation((25, 10, -15)).T
    yaw, pitch, roll = pose_of(tilted)
    mirrored = mirror_faces(tilted[None], found.blendshapes[None], partner)[0][0]
    np.testing.assert_allclose(pose_of(mirrored), (-yaw, pitch, -roll), atol=0.1)
    yaw, pitch, roll = pose_of(found.landmarks)
    other = landmarker.detect_picture(np.ascontiguousarray(frame[:, ::-1]))[0]
    np.testing.assert_allclose(pose_of(other.landmarks), (-yaw, pitch, -roll), atol=2)


def test_signs_are_those_of_ml_kit(face):
    """Positive: looks to the right side of the picture, upward, and is turned counter-clockwise."""
    landmarks = face[1].landmarks.astype(np.float64)
    upright = landmarks @ rotation(pose_of(landmarks))
    nose, chin, forehead, cheeks = 1, 152, 10, [234, 454]

    def ahead(points) -> np.ndarray:
        return points[nose] - points[cheeks].mean(axis=0)

    yaw, pitch, roll = (upright @ rotation(angles).T for angles in 20 * np.eye(3))
    assert [pose_of(points).round().tolist() for points in (yaw, pitch, roll)] == (20 * np.eye(3)).tolist()
    assert ahead(yaw)[0] > ahead(upright)[0] + 0.01 and ahead(pitch)[1] < ahead(upright)[1] - 0.01
    assert (roll[forehead] - roll[chin])[0] < -0.01, "its top goes to the left"
