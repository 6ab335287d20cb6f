"""People keep their numbers from frame to frame: side by side, crossing, leaving; and lose them at a cut."""

import cv2
import numpy as np
import pytest
from conftest import DATA, DEMO, SMILE, frames_of

from utils.faces.features import face_box
from utils.faces.landmarker import FaceLandmarker
from utils.faces.tracking import MOST_CHANGE, PointFilter, change

SIZE = 240
"""Height of the people's frames, each cut to a square around its face."""


@pytest.fixture(scope="module")
def people() -> list[list[np.ndarray]]:
    """Thirty frames, (240, 240, 3), of two people: a woman and a man."""
    squares = []
    for path, left in ((DEMO, 140), (SMILE, 140)):
        frames = frames_of(path)[:60:2]
        squares.append([cv2.resize(frame[:, left : left + 360], (SIZE, SIZE)) for frame in frames])
    return squares


def follow(frames, max_faces: int = 4, fps: int = 25) -> list[dict[int, float]]:
    """Return for each frame the people on it and the middle of each one's face, x in pixels."""
    landmarker = FaceLandmarker(video=True, max_faces=max_faces)
    found = []
    for index, frame in enumerate(frames):
        faces = landmarker.detect(frame, index * 1000 // fps)
        boxes = {face.person: face_box(face.landmarks) * frame.shape[1] for face in faces}
        assert len(boxes) == len(faces), "no two faces are the same person"
        found.append({person: box[0] + box[2] / 2 for person, box in boxes.items()})
    return found


def test_people_side_by_side_keep_their_numbers(people):
    woman, man = people
    found = follow([np.hstack(pair) for pair in zip(woman, man)])
    assert all(set(frame) == {0, 1} for frame in found)
    left = min(found[0], key=found[0].get)
    assert all(frame[left] < SIZE < frame[1 - left] for frame in found)


def test_people_who_cross_keep_their_numbers(people):
    """The man, in front, goes from right to left, the woman from left to right; he hides her for a while."""
    frames = []
    for index in range(60):
        canvas = np.full((SIZE, 4 * SIZE, 3), 60, np.uint8)
        step = round(index / 59 * 3 * SIZE)
        canvas[:, step : step + SIZE] = people[0][index // 2]
        canvas[:, 3 * SIZE - step : 4 * SIZE - step] = people[1][index // 2]
        frames.append(canvas)
    found = follow(frames)
    woman, man = sorted(found[0], key=found[0].get)
    assert set(found[-1]) == {woman, man}, "they are the same two at the end"
    assert found[-1][man] < found[-1][woman]
    assert len({person for frame in found for person in frame}) == 2
    for index, frame in enumerate(found):
        if man in frame:
            assert abs(frame[man] - (3.5 * SIZE - index / 59 * 3 * SIZE)) < SIZE / 3


def test_who_leaves_is_gone_and_the_other_stays(people):
    woman, man = people
    both = [np.hstack(pair) for pair in zip(woman, man)]
    alone = [np.hstack([np.zeros_like(frame), frame]) for frame in man]
    found = follow(both[:10] + alone[10:])
    stays = max(found[0], key=found[0].get)
    assert all(stays in frame for frame in found)
    assert all(set(frame) == {stays} for frame in found[10:])


@pytest.mark.parametrize("max_faces", [1, 3])
def test_a_cut_to_another_person_is_another_person(people, max_faces):
    """In the same place, so that only the appearance tells them apart; and back again."""
    woman, man = people
    found = follow(woman[:10] + man[10:20] + woman[20:], max_faces)
    first, second = set(found[5]), set(found[15])
    assert len(first) == len(second) == 1 and first != second
    assert all(set(frame) <= second for frame in found[11:20])
    assert not set(found[20]) & second


def test_one_person_stays_one_whatever_the_light(people):
    dark = [cv2.convertScaleAbs(frame, alpha=0.5) for frame in people[0]]
    frames = people[0][:10] + dark[10:20] + people[0][20:]
    for max_faces in (1, 3):
        assert len({person for frame in follow(frames, max_faces) for person in frame}) == 1


def test_small_faces_are_followed_too():
    group = cv2.imread(str(DATA / "group.jpg"))
    frames = [np.roll(group, 4 * step, axis=1) for step in range(8)]
    found = follow(frames, max_faces=10)
    assert all(set(frame) == set(range(5)) for frame in found)
    for person in range(5):
        assert found[-1][person] - found[0][person] == pytest.approx(28, abs=8)
    assert len(follow(frames[:2], max_faces=2)[1]) == 2


def test_appearances_tell_people_apart_whatever_the_light(people):
    one, other = (
        cv2.resize(frames[0][60:180, 60:180], (16, 16), interpolation=cv2.INTER_AREA) / 255.0
        for frames in people
    )
    assert change(one, other) > MOST_CHANGE > change(one, 0.5 * one + 0.1)
    assert change(one, np.zeros_like(one)) == 0, "the dark tells nothing"


def on_grey(face: np.ndarray, side: int, left: int, size: tuple[int, int] = (360, 640)) -> np.ndarray:
    """Return a grey frame with a square picture of a face on it, cut off where the frame ends."""
    canvas = np.full((*size, 3), 60, np.uint8)
    part = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)[: size[0], max(0, -left) :]
    part = part[:, : size[1] - max(0, left)]
    canvas[: part.shape[0], max(0, left) : max(0, left) + part.shape[1]] = part
    return canvas


@pytest.mark.parametrize("max_faces", [1, 2])
@pytest.mark.parametrize(("side", "left"), [(60, 300), (300, -90), (300, 430)])
def test_a_small_face_and_one_cut_by_the_edge_are_found(people, side, left, max_faces):
    """The face fills two fifths of its square: .04 of the width."""
    found = follow([on_grey(frame, side, left) for frame in people[1][:5]], max_faces)
    assert [set(frame) for frame in found] == [{0}] * 5


def test_the_largest_face_is_followed_though_another_was_first(people):
    woman, man = people
    frames = []
    for index in range(60):
        frame = on_grey(woman[index // 2], 120, 0)
        side = 120 + 3 * index
        frame[:side, 340 : 340 + side] = cv2.resize(man[index // 2], (side, side))
        frames.append(frame)
    found = follow(frames, max_faces=1)
    assert all(len(frame) == 1 for frame in found)
    middles = [next(iter(frame.values())) for frame in found]
    assert middles[0] < 120 and middles[-1] > 340, "the woman first; the man at the end"
    assert sum((one > 320) != (other > 320) for one, other in zip(middles, middles[1:])) == 1


def test_points_at_rest_are_smoothed_and_quick_ones_are_followed():
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.002 * 100, (50, 478, 3))
    smoother = PointFilter(noise[0], 0)
    smooth = [smoother.update(points, 100, 40 * index) for index, points in enumerate(noise)]
    assert np.std(smooth[20:]) < 0.5 * np.std(noise)
    moved = smoother.update(noise[-1] + 50, 100, 2000)
    assert abs((moved - 50).mean()) < 5
    assert smoother.update(noise[0], 100, 2000) is moved, "the clock stands still: nothing is learnt"
