"""Each face is read by its own crop, whoever comes, goes or takes its place."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import DEMO, SMILE, frames_of

from utils.app.pipeline import FaceReader
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
        with FaceLandmarker(video=True) as landmarker:
            faces = [landmarker.detect(image, 40 * index)[0] for index, image in enumerate(images)]
        people.append([(image, replace(face, person=person)) for image, face in zip(images, faces)])
    return people


@pytest.fixture(scope="module")
def reader():
    with FaceReader(str(MODELS), still=False, max_faces=2, smoothing_ms=0) as reader:
        yield reader


def beside(left: tuple[np.ndarray, Face], right: tuple[np.ndarray, Face]) -> tuple[np.ndarray, list[Face]]:
    """Return a frame with two people side by side, and their faces on it."""
    moved = right[1].landmarks / 2 + np.array([0.5, 0, 0], np.float32)
    faces = [replace(left[1], landmarks=left[1].landmarks / 2), replace(right[1], landmarks=moved)]
    return np.hstack([left[0], right[0]]), faces


def find_fresh(reader: FaceReader, frames: list[tuple[np.ndarray, list[Face]]]) -> list[list[bool]]:
    """Return for each frame and face whether it is read by its crop on this very frame."""
    fresh = []
    for index, (image, faces) in enumerate(frames):
        readings = reader.read(Frame(image, index, 40 * index, f"clip {id(frames)}", 0.0), faces)
        by_face = {reading.landmarks.tobytes(): reading.probabilities for reading in readings}
        used = [by_face[face.landmarks.tobytes()] for face in faces]
        fresh.append([np.array_equal(*pair) for pair in zip(used, reader.predict(faces, image))])
    return fresh


def alone(frames: list[tuple[np.ndarray, Face]]) -> list[tuple[np.ndarray, list[Face]]]:
    return [(image, [face]) for image, face in frames]


def test_one_face_is_looked_at_once_in_130_ms(people, reader):
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
