"""Features: the same ones for the same face, wherever and however it lies in the picture."""

import cv2
import numpy as np
import pytest
from conftest import DATA

from utils.config import MODELS, UserError
from utils.faces.features import (
    ALL_POINTS,
    align,
    compute_features,
    face_box,
    fit_recipe,
    fit_reference,
    mirror_faces,
    mirror_map,
)
from utils.faces.images import shrink
from utils.faces.landmarker import FaceLandmarker
from utils.model.bundle import load_info


@pytest.fixture(scope="module")
def landmarker():
    landmarker = FaceLandmarker()
    yield landmarker


@pytest.fixture(scope="module")
def faces(landmarker, portrait):
    """Landmarks (4, 478, 3) of one portrait: as it is, moved, half as large in a wider picture, turned by
    25 degrees."""
    height, width = portrait.shape[:2]
    moved = cv2.warpAffine(
        portrait, np.float32([[1, 0, 40], [0, 1, 25]]), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    small = cv2.copyMakeBorder(
        cv2.resize(portrait, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        0,
        20,
        60,
        30,
        cv2.BORDER_REPLICATE,
    )
    turned = cv2.warpAffine(
        portrait, cv2.getRotationMatrix2D((224, 130), 25, 1), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    return np.stack(
        [landmarker.detect_picture(picture)[0].landmarks for picture in (portrait, moved, small, turned)]
    )


def test_landmarks_are_found_on_a_portrait(landmarker, portrait):
    found = landmarker.detect_picture(portrait)
    assert len(found) == 1
    assert found[0].landmarks.shape == (ALL_POINTS, 3) and found[0].landmarks.dtype == np.float32
    assert found[0].blendshapes.shape == (52,)
    nose = found[0].landmarks[1, :2] * portrait.shape[1]
    assert np.linalg.norm(nose - (228, 128)) < 25, "the tip of the nose is not where it is on the picture"


def test_no_landmarks_are_found_on_a_landscape(landmarker):
    assert landmarker.detect_picture(cv2.imread(str(DATA / "landscape.jpg"))) == []


def test_the_largest_face_comes_first(landmarker):
    group = cv2.imread(str(DATA / "group.jpg"))
    for_all = FaceLandmarker(max_faces=None)
    areas = [face.area for face in for_all.detect_picture(group)]
    assert len(areas) == 5 and areas == sorted(areas, reverse=True)
    assert [face.area for face in landmarker.detect_picture(group)] == areas[:1]


def test_a_face_that_fills_its_picture_is_found(landmarker, portrait):
    tight = portrait[62:185, 172:282]
    whole = landmarker.detect_picture(portrait)[0].landmarks
    found = landmarker.detect_picture(tight)
    assert found, "no face on the tight crop"
    expected = (whole[:, :2] * portrait.shape[1] - (172, 62)) / tight.shape[1]
    assert np.abs(found[0].landmarks[:, :2] - expected).mean() < 0.04


def test_bad_frames_are_refused_and_do_not_poison_the_landmarker(landmarker, portrait):
    for bad in (
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 3), np.float32),
    ):
        with pytest.raises(UserError, match="expected pixels"):
            landmarker.detect_picture(bad)
    assert landmarker.detect_picture(portrait)


def test_strided_frames_give_the_same_landmarks(landmarker, portrait):
    mirrored_twice = portrait[:, ::-1][:, ::-1]
    np.testing.assert_array_equal(
        landmarker.detect_picture(mirrored_twice)[0].landmarks,
        landmarker.detect_picture(portrait)[0].landmarks,
    )


def test_aligned_features_ignore_shift_scale_and_rotation_of_the_picture(faces):
    recipe = fit_recipe("aligned", faces)
    features = compute_features(faces, None, recipe).reshape(len(faces), -1, 3)
    raw = compute_features(faces, None, fit_recipe("raw", faces)).reshape(len(faces), -1, 3)
    face_width = np.ptp(np.array(recipe["reference"])[:, 0])
    for other in range(1, len(faces)):
        change = np.linalg.norm(features[other] - features[0], axis=1).mean() / face_width
        crop_change = np.linalg.norm(raw[other] - raw[0], axis=1).mean() / np.ptp(raw[0, :, 0])
        assert change < 0.03, f"picture {other}"
        assert crop_change > 5 * change, "the raw coordinates should have moved, or this test shows nothing"


def test_alignment_undoes_any_similarity_exactly(faces):
    generator = np.random.default_rng(0)
    reference = fit_reference(faces[:, :468])
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    moved = (2.7 * faces[:, :468] @ rotation.T + (3, -1, 0.5)).astype(np.float32)
    np.testing.assert_allclose(align(moved, reference), align(faces[:, :468], reference), atol=2e-5)


def test_alignment_never_reflects(faces):
    reference = fit_reference(faces[:, :468])
    mirrored = faces[:, :468] * np.float32([-1, 1, 1])
    assert np.abs(align(mirrored, reference) - align(faces[:, :468], reference)).mean() > 0.02


def test_features_refuse_landmarks_of_another_shape():
    for shape in ((468, 3), (2, 100, 3), (2, 478, 2)):
        with pytest.raises(ValueError, match="landmarks of shape"):
            compute_features(
                np.zeros(shape, np.float32), None, {"kind": "raw", "points": 468, "blendshapes": False}
            )


def test_features_with_blendshapes_need_them(faces):
    recipe = {"kind": "raw", "points": 468, "blendshapes": True}
    blendshapes = np.random.default_rng(0).random((len(faces), 52), np.float32)
    features = compute_features(faces, blendshapes, recipe)
    assert features.shape == (len(faces), 1404 + 52)
    np.testing.assert_array_equal(features[:, 1404:], blendshapes)
    for bad in (None, blendshapes[:2]):
        with pytest.raises(ValueError, match="blendshapes of shape"):
            compute_features(faces, bad, recipe)


def test_mirroring_landmarks_is_like_mirroring_the_picture(landmarker, portrait, faces):
    """The partner of each point is where MediaPipe finds it on the mirrored picture; without the map it
    is far off."""
    from_picture = landmarker.detect_picture(np.ascontiguousarray(portrait[:, ::-1]))[0]
    original = landmarker.detect_picture(portrait)[0]
    partner = mirror_map(np.array(load_info(MODELS)["features"]["reference"]))
    assert (
        sorted(partner.tolist()) == list(range(468))
        and partner[33] == 263
        and partner[61] == 291
        and partner[1] == 1
    )
    landmarks, blendshapes = mirror_faces(original.landmarks[None], original.blendshapes[None], partner)
    reference = fit_reference(from_picture.landmarks[None, :468])
    found, expected = align(landmarks, reference)[0], align(from_picture.landmarks[None, :468], reference)[0]
    unmapped = align((original.landmarks[None, :468] * np.float32([-1, 1, 1])), reference)[0]
    distance = np.linalg.norm(found - expected, axis=1).mean()
    assert distance < 0.1 and np.linalg.norm(unmapped - expected, axis=1).mean() > 5 * distance
    np.testing.assert_array_equal(mirror_faces(landmarks, blendshapes, partner)[1][0], original.blendshapes)
    assert blendshapes[0, 9] == original.blendshapes[10], "eyeBlinkLeft and eyeBlinkRight change places"


def test_a_wide_face_is_read_the_same_wherever_it_lies(landmarker, portrait):
    small = landmarker.detect_picture(portrait)[0]
    large = cv2.resize(portrait, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    aside = cv2.copyMakeBorder(large, 0, 0, 1200, 0, cv2.BORDER_REPLICATE)
    for picture, left in ((large, 0), (aside, 1200)):
        face = landmarker.detect_picture(picture)[0]
        points = face.landmarks * picture.shape[1] - np.float32([left, 0, 0])
        distance = np.linalg.norm((points / large.shape[1] - small.landmarks)[:, :2], axis=1)
        assert distance.mean() < 0.02 * face_box(small.landmarks)[2]


def test_shrinking_keeps_shape_and_mean(portrait):
    for scale in (0.8, 0.5, 0.37, 0.1):
        small = shrink(portrait, scale)
        assert small.shape == (round(portrait.shape[0] * scale), round(portrait.shape[1] * scale), 3)
        assert abs(small.mean() - portrait.mean()) < 2
    assert shrink(portrait, 1.5) is portrait


def test_face_box_is_in_image_widths(faces, portrait):
    x, y, width, height = face_box(faces[0]) * portrait.shape[1]
    assert 150 < x < 200 and 40 < y < 90 and 80 < width < 130 and 100 < height < 150
