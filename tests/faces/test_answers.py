"""MediaPipe's answers read from its memory are those of its documented interface, to the bit."""

import re

import numpy as np
import pytest
from conftest import DEMO, ROOT, frames_of

from utils.faces.answers import TESTED, AnswerReader
from utils.faces.landmarker import FaceLandmarker


def detect(direct: bool, frames: list[np.ndarray]) -> list:
    with FaceLandmarker(video=True) as landmarker:
        assert landmarker._answers.direct, "the version in requirements.txt is read directly"
        landmarker._answers.direct = direct
        return [landmarker.detect(frame, 40 * index) for index, frame in enumerate(frames)]


def test_memory_holds_what_the_documented_interface_says():
    frames = [*frames_of(DEMO)[:24:3], np.zeros((360, 640, 3), np.uint8)]
    read, documented = detect(True, frames), detect(False, frames)
    assert [len(faces) for faces in read] == [1] * 8 + [0]
    for (one,), (other,) in zip(read[:8], documented[:8]):
        assert np.array_equal(one.landmarks, other.landmarks)
        assert np.array_equal(one.blendshapes, other.blendshapes)
    assert documented[8] == []


def test_a_version_that_was_not_tested_is_asked_in_the_documented_way():
    assert not AnswerReader(object(), "1.3.0").direct


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-live.txt"])
def test_the_version_that_is_installed_was_tested(name):
    assert re.search(r"^mediapipe==(.+)$", (ROOT / name).read_text(), re.MULTILINE)[1] == TESTED
