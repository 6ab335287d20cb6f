"""Faces are found at any size, turn and number, with their points in place; none where there are none."""

import cv2
import numpy as np
import pytest
from conftest import DATA, DEMO, ROOT, SMILE, frames_of
from PIL import Image

from utils.faces.detection import RotatedBox
from utils.faces.features import face_box
from utils.faces.images import brighten, is_animated, load_picture
from utils.faces.landmarker import FaceLandmarker


@pytest.fixture(scope="module")
def landmarker():
    landmarker = FaceLandmarker(max_faces=None)
    yield landmarker


@pytest.fixture(scope="module")
def truth(landmarker, portrait):
    """The portrait's one face: its points (478, 3) in pixels, and its blendshapes."""
    (face,) = landmarker.detect_picture(portrait)
    return face.landmarks * portrait.shape[1], face.blendshapes


def turned(picture: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture turned about its middle, whole, on black; and the matrix (2, 3) that did it."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    cosine, sine = np.abs(matrix[0, :2])
    size = int(width * cosine + height * sine), int(width * sine + height * cosine)
    matrix[:, 2] += size[0] / 2 - width / 2, size[1] / 2 - height / 2
    return cv2.warpAffine(picture, matrix, size), matrix


@pytest.mark.parametrize("degrees", range(0, 360, 45))
def test_a_turned_face_is_read_as_upright(landmarker, portrait, truth, degrees):
    picture, matrix = turned(portrait, degrees)
    (face,) = landmarker.detect_picture(picture)
    points, width = face.landmarks * picture.shape[1], np.ptp(truth[0][:, 0])
    expected = truth[0][:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert np.linalg.norm(points[:, :2] - expected, axis=1).mean() < 0.03 * width
    assert np.abs(points[:, 2] - truth[0][:, 2]).mean() < 0.03 * width
    assert np.abs(face.blendshapes - truth[1]).mean() < 0.04


def test_every_face_of_a_crowd_is_found(landmarker, portrait):
    faces = [portrait, frames_of(SMILE)[0], frames_of(SMILE)[-1], frames_of(DEMO)[0]]
    tiles = []
    for number in range(12):
        face = faces[number % 4]
        height, width = face.shape[:2]
        tiles.append(cv2.resize(face[:, (width - height) // 2 :][:, :height], (600, 600)))
    crowd = np.vstack([np.hstack(tiles[row : row + 4]) for row in (0, 4, 8)])
    assert crowd.shape == (1800, 2400, 3)
    found = landmarker.detect_picture(crowd)
    middles = [face_box(face.landmarks) * 2400 for face in found]
    assert sorted((int(y // 600), int(x // 600)) for x, y, *_ in middles) == [
        (row, column) for row in range(3) for column in range(4)
    ]


@pytest.mark.parametrize("width_px", [400, 160])
def test_a_face_is_found_on_twelve_megapixels(landmarker, portrait, truth, width_px):
    scale = width_px / np.ptp(truth[0][:, 0])
    large = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    picture = np.full((3000, 4000, 3), 90, np.uint8)
    part = large[:2000, :2000]
    picture[500 : 500 + part.shape[0], 1500 : 1500 + part.shape[1]] = part
    (face,) = landmarker.detect_picture(picture)
    nose = face.landmarks[1, :2] * 4000
    assert np.linalg.norm(nose - (truth[0][1, :2] * scale + (1500, 500))) < 0.1 * width_px


@pytest.mark.parametrize("width_px", [48, 32, 24])
def test_small_faces_are_found(landmarker, portrait, truth, width_px):
    scale = width_px / np.ptp(truth[0][:, 0])
    small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = np.full((480, 640, 3), 90, np.uint8)
    picture[100 : 100 + small.shape[0], 200 : 200 + small.shape[1]] = small
    (face,) = landmarker.detect_picture(picture)
    nose = face.landmarks[1, :2] * 640
    assert np.linalg.norm(nose - (truth[0][1, :2] * scale + (200, 100))) < 0.1 * width_px


def test_no_face_is_invented(landmarker):
    landscape = cv2.imread(str(DATA / "landscape.jpg"))
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    for picture in (landscape, np.rot90(landscape), noise, np.zeros((20, 1600, 3), np.uint8)):
        assert landmarker.detect_picture(np.ascontiguousarray(picture)) == []


def test_a_region_s_crop_and_its_matrix_agree():
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[80:83, 150:153] = 255
    region = RotatedBox(140, 90, 120, 0.7)
    crop = region.cut(picture, 240)
    x, y = (region.to_crop(240) @ (151.5, 81.5, 1))[:2]
    weights = crop[..., 0].astype(float)
    rows, columns = np.mgrid[:240, :240] + 0.5
    assert abs((weights * columns).sum() / weights.sum() - x) < 0.2
    assert abs((weights * rows).sum() / weights.sum() - y) < 0.2
    assert not RotatedBox(-900, 50, 100).cut(picture, 64).any(), "beyond the picture there is nothing"


@pytest.mark.parametrize("light", [0.06, 0.03])
def test_a_face_in_the_dark_is_found(landmarker, portrait, truth, light):
    (face,) = landmarker.detect_picture((portrait * light).astype(np.uint8))
    distance = np.linalg.norm((face.landmarks * portrait.shape[1] - truth[0])[:, :2], axis=1).mean()
    assert distance < 0.03 * np.ptp(truth[0][:, 0])
    dark = [(frame * light).astype(np.uint8) for frame in frames_of(SMILE)[:3]]
    follower = FaceLandmarker(video=True)
    assert [len(follower.detect(frame, 40 * index)) for index, frame in enumerate(dark)] == [1, 1, 1]


def test_a_still_gif_shows_the_faces_of_the_jpeg(landmarker, tmp_path):
    with Image.open(DATA / "group.jpg") as image:
        image.save(tmp_path / "group.gif")
    assert not is_animated(tmp_path / "group.gif")
    assert len(landmarker.detect_picture(load_picture(tmp_path / "group.gif").image)) == 5


@pytest.mark.parametrize("shape", [(1, 640, 3), (640, 1, 3), (1, 1, 3), (3, 5000, 3)])
def test_odd_shapes_show_no_face(landmarker, shape):
    assert landmarker.detect_picture(np.full(shape, 90, np.uint8)) == []
    assert FaceLandmarker(video=True).detect(np.full(shape, 90, np.uint8), 0) == []


def test_a_picture_in_enough_light_is_not_brightened(portrait):
    assert brighten(portrait) is portrait
    black = np.zeros((100, 100, 3), np.uint8)
    assert brighten(black) is black
    black[40:60, 40:60] = 200
    assert brighten(black) is black, "a small light thing on black"


def test_the_detector_is_named_where_licences_are():
    for file in ("README.md", "models/README.md"):
        assert "face_detection_yunet_2023mar.onnx" in (ROOT / file).read_text(encoding="utf-8")
