"""Crops: the same face gives the same crop, whatever the picture's size, turn and place."""

import cv2
import numpy as np
import pytest

from utils.faces.crops import CROP_PX, crop_face, crop_faces, network_input
from utils.faces.landmarker import FaceLandmarker

RECIPE = {"seen_px": 88, "input_px": 160}


@pytest.fixture(scope="module")
def face(portrait):
    landmarker = FaceLandmarker()
    return landmarker.detect_picture(portrait)[0]


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two crops' middle parts."""
    return float(np.corrcoef(one[16:-16, 16:-16].ravel(), other[16:-16, 16:-16].ravel())[0, 1])


def test_a_crop_is_upright_and_as_high_as_the_reference(portrait, face):
    crop = crop_face(portrait, face.landmarks)
    assert crop.shape == (CROP_PX, CROP_PX) and crop.dtype == np.uint8 and crop.std() > 30
    landmarker = FaceLandmarker()
    (found,) = landmarker.detect_picture(cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR))
    mesh = found.landmarks[:468, :2] * CROP_PX
    assert np.ptp(mesh[:, 1]) == pytest.approx(90, abs=8)
    assert abs(mesh[33, 1] - mesh[263, 1]) < 4, "the eyes are level"


@pytest.mark.parametrize("scale", (0.4, 1.7, 6.0))
def test_the_size_of_the_picture_does_not_matter(portrait, face, scale):
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    sized = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=how)
    assert likeness(crop_face(portrait, face.landmarks), crop_face(sized, face.landmarks)) > 0.98


def test_turn_and_place_do_not_matter(portrait, face):
    height, width = portrait.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 40, 0.8)
    turn[:, 2] += (60, -30)
    turned = cv2.warpAffine(portrait, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    points = face.landmarks.copy()
    points[:, :2] = (points[:, :2] * width @ turn[:, :2].T + turn[:, 2]) / width
    assert likeness(crop_face(portrait, face.landmarks), crop_face(turned, points)) > 0.98


def test_a_face_outside_the_picture_gives_a_crop_of_its_border(portrait, face):
    assert crop_face(portrait, face.landmarks + 5).std() < 60
    assert crop_faces(portrait, []).shape == (0, CROP_PX, CROP_PX)


def test_light_and_contrast_are_taken_off(portrait, face):
    crop = crop_face(portrait, face.landmarks)
    dim = (crop * 0.5 + 40).astype(np.uint8)
    one, other = network_input(np.stack([crop, dim]), RECIPE)
    assert one.shape == (160, 160, 1) and one.dtype == np.float32
    assert np.abs(one - other).mean() < 4 and abs(one.mean()) < 6
    assert not network_input(np.full((1, CROP_PX, CROP_PX), 9, np.uint8), RECIPE).std()
