"""Frames are worked on ahead and in order, and each face is read by its own crop, whoever comes or goes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import DEMO, ROOT, SMILE, frames_of

from utils.app.pipeline import FaceReader, box_px
from utils.app.smoothing import UNCERTAIN
from utils.config import MODELS
from utils.faces.landmarker import Face, FaceLandmarker
from utils.video.frames import Frame

SIZE = 240


@pytest.fixture(scope="module")
def people() -> list[list[tuple[np.ndarray, Face]]]:
    """Six frames (240, 240, 3) each of a woman, person 0, and of a man, person 1; with their faces."""
    people = []
    for person, path in enumerate((DEMO, SMILE)):
        images = [cv2.resize(frame[:, 140:500], (SIZE, SIZE)) for frame in frames_of(path)[:12:2]]
        landmarker = FaceLandmarker(video=True)
        faces = [landmarker.detect(image, 40 * index)[0] for index, image in enumerate(images)]
        people.append([(image, replace(face, person=person)) for image, face in zip(images, faces)])
    return people


@pytest.fixture(scope="module")
def reader():
    reader = FaceReader(str(MODELS), max_faces=2, smoothing_ms=0)
    yield reader


def test_a_face_with_a_covered_mouth_is_uncertain(reader, portrait, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "measure"))
    from covered import draw_hand, draw_mask, find, frame_of

    points = find(reader, portrait)[0].landmarks[:, :2] * portrait.shape[1]
    labels = []
    for draw in (lambda image, *_: image, draw_mask, draw_hand):
        frame = frame_of(draw(portrait, points, np.random.default_rng(0)))
        (result,) = reader.read(frame, reader.find(frame))
        labels.append(result.emotion)
    assert labels == ["happy", "uncertain", "uncertain"]


def beside(left: tuple[np.ndarray, Face], right: tuple[np.ndarray, Face]) -> tuple[np.ndarray, list[Face]]:
    """Return a frame with two people side by side, and their faces on it."""
    moved = right[1].landmarks / 2 + np.array([0.5, 0, 0], np.float32)
    faces = [replace(left[1], landmarks=left[1].landmarks / 2), replace(right[1], landmarks=moved)]
    return np.hstack([left[0], right[0]]), faces


def find_fresh(reader: FaceReader, frames: list[tuple[np.ndarray, list[Face]]]) -> list[list[bool]]:
    """Return for each frame and face whether it is read by its crop on this very frame."""
    fresh = []
    for index, (image, faces) in enumerate(frames):
        results = reader.read(Frame(image, index, 40 * index, "clip", 0.0), faces)
        by_face = {result.landmarks.tobytes(): [*result.probabilities.values()] for result in results}
        used = [by_face[face.landmarks.tobytes()] for face in faces]
        anew = reader.predict(faces, image).probabilities
        fresh.append([np.array_equal(*pair) for pair in zip(used, anew)])
    return fresh


def alone(frames: list[tuple[np.ndarray, Face]]) -> list[tuple[np.ndarray, list[Face]]]:
    return [(image, [face]) for image, face in frames]


def test_one_face_is_cropped_once_in_130_ms(people, reader):
    assert find_fresh(reader, alone(people[0])) == [[True], [False], [False], [False], [True], [False]]


@pytest.mark.parametrize("cut", [2, 3])
def test_after_a_cut_nobody_is_read_by_the_crop_of_the_person_before(people, reader, cut):
    woman, man = people
    fresh = find_fresh(reader, alone(woman[:cut] + man[cut:]))
    assert fresh[cut : cut + 2] == [[True], [False]]


def test_all_are_read_by_their_own_crops_when_somebody_comes_goes_or_crosses(people, reader):
    woman, man = people
    together, crossed = beside(woman[2], man[2]), beside(man[3], woman[3])
    frames = [*alone(man[:1]), together, crossed, *alone(man[4:])]
    assert find_fresh(reader, frames) == [[True], [True, True], [True, True], [True], [False]]


def test_a_still_picture_is_labelled_as_it_is_or_uncertain(people, reader):
    (image, face), *_ = people[0]
    frame = Frame(image, 0, 0, "picture", 0.0, still=True)
    (result,) = reader.read(frame, [replace(face, person=None)])
    (probabilities,) = reader.predict([face], image).probabilities
    np.testing.assert_array_equal([*result.probabilities.values()], probabilities)
    assert result.face == 0 and result.confidence == probabilities.max()
    sure = reader.classifier.classes[int(probabilities.argmax())]
    before = reader.classifier.threshold
    try:
        for threshold, emotion in ((result.confidence - 0.01, sure), (result.confidence + 0.01, UNCERTAIN)):
            reader.classifier.threshold = threshold
            assert reader.read(frame, [face])[0].emotion == emotion
    finally:
        reader.classifier.threshold = before


def test_another_video_begins_afresh(people, reader):
    woman, man = people
    (image, face), (other, of_other) = woman[0], man[0]
    alone_at_first = reader.read(Frame(other, 0, 0, "b", 0.0), [of_other])[0].probabilities
    for index in range(3):
        reader.read(Frame(image, index, 40 * index, "a", 0.0), [face])
    again = reader.read(Frame(other, 0, 0, "b", 0.0), [of_other])[0].probabilities
    assert again == alone_at_first


def test_boxes_are_cut_at_the_frame():
    assert box_px((-0.1, 0.5, 0.3, 0.9), (480, 640, 3)) == (0, 320, 128, 160)
    assert box_px((1.2, 0.1, 0.3, 0.3), (480, 640, 3))[2] == 0
