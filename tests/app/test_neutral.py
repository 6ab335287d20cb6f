"""A neutral face is taken in a second, and one that is plainly not at rest is named."""

import numpy as np
import pytest
from conftest import DEMO, SMILE, frames_of

from utils.app.neutral import NeutralTaker, find_movement
from utils.faces.landmarker import FaceLandmarker


@pytest.mark.parametrize(
    "clip, begin, doing", [(SMILE, 0, ""), (SMILE, 50, "you smile"), (DEMO, 400, "you smile")]
)
def test_a_smile_is_no_face_at_rest(clip, begin, doing):
    with FaceLandmarker(max_faces=1) as landmarker:
        faces = [landmarker.detect_picture(frame)[0] for frame in frames_of(clip)[begin : begin + 20 : 4]]
    assert find_movement(np.stack([face.blendshapes for face in faces])) == doing


def test_a_slow_camera_is_given_longer():
    taker = NeutralTaker()
    face = np.zeros((478, 3), np.float32), np.zeros(52, np.float32)
    assert [taker.add(*face, 400 * number) for number in range(5)] == [False] * 4 + [True]
    assert taker.taken()[0].shape == (5, 478, 3)
