"""Calm labels: the same at any frame rate, slow to change, quick to forget."""

import numpy as np
import pytest

from utils.app.smoothing import (
    FORGET_MS,
    MARGIN,
    RESET_MS,
    TIME_CONSTANT_MS,
    UNCERTAIN,
    EmotionSmoother,
    FaceTracker,
    box_px,
    read_picture,
)

CLASSES = ("fear", "happy", "neutral", "sad")
HAPPY = np.array([0.02, 0.9, 0.05, 0.03], np.float32)
SAD = np.array([0.03, 0.02, 0.05, 0.9], np.float32)
SHAPE = (480, 640, 3)


def face_at(x: float, y: float = 0.3, side: float = 0.2) -> np.ndarray:
    points = np.random.default_rng(0).random((478, 3)).astype(np.float32)
    return points * side + np.array([x, y, 0], np.float32)


@pytest.mark.parametrize("fps", [5, 24, 30, 120])
def test_step_response_does_not_depend_on_the_frame_rate(fps):
    smoother = EmotionSmoother(CLASSES)
    smoother.update(HAPPY, 0)
    for timestamp_ms in np.arange(1000 / fps, 600.1, 1000 / fps):
        smoother.update(SAD, round(timestamp_ms))
    expected = HAPPY + (SAD - HAPPY) * (1 - np.exp(-600 / TIME_CONSTANT_MS))
    assert smoother.probabilities == pytest.approx(expected, abs=0.01)


def test_label_flickers_raw_but_not_smoothed():
    rng = np.random.default_rng(0)
    noisy = np.array([0.1, 0.42, 0.38, 0.1]) + rng.normal(0, 0.06, (300, 4))
    raw = [int(row.argmax()) for row in noisy]
    smoother = EmotionSmoother(CLASSES)
    calm = [smoother.update(row.astype(np.float32), index * 33)[0] for index, row in enumerate(noisy)]
    assert sum(a != b for a, b in zip(raw, raw[1:])) > 50
    assert sum(a != b for a, b in zip(calm, calm[1:])) <= 1


def test_hysteresis_needs_a_lead_in_both_directions():
    smoother = EmotionSmoother(CLASSES, time_constant_ms=0)
    assert smoother.update(np.array([0, 0.5, 0.4, 0.1], np.float32), 0)[0] == "happy"
    assert smoother.update(np.array([0, 0.45, 0.45 + MARGIN / 2, 0], np.float32), 40)[0] == "happy"
    assert smoother.update(np.array([0, 0.4, 0.4 + 2 * MARGIN, 0], np.float32), 80)[0] == "neutral"
    assert smoother.update(np.array([0, 0.5, 0.5 - MARGIN / 2, 0], np.float32), 120)[0] == "neutral"


def test_uncertain_when_no_class_is_sure_and_never_without_threshold():
    unsure = np.full(4, 0.25, np.float32)
    assert EmotionSmoother(CLASSES, threshold=0.5).update(unsure, 0) == (UNCERTAIN, 0.25)
    assert EmotionSmoother(CLASSES).update(unsure, 0)[0] in CLASSES


def test_a_lost_face_starts_afresh_but_keeps_its_number_for_a_while():
    tracker = FaceTracker(CLASSES)
    tracker.update([7], [face_at(0.3)], HAPPY[None], 0, SHAPE)
    occluded = tracker.update([7], [face_at(0.32)], SAD[None], RESET_MS, SHAPE)[0]
    assert occluded.face == 0 and occluded.probabilities[1] > 0.1  # still remembers
    back = tracker.update([7], [face_at(0.32)], SAD[None], 2 * RESET_MS + 1, SHAPE)[0]
    assert back.face == 0 and back.probabilities == pytest.approx(SAD)
    assert tracker.update([], [], np.empty((0, 4), np.float32), 2 * RESET_MS + 50, SHAPE) == []
    later = tracker.update([7], [face_at(0.32)], SAD[None], 2 * RESET_MS + 2 + FORGET_MS, SHAPE)[0]
    assert later.face == 1


def test_two_faces_keep_their_numbers_when_the_detector_swaps_them():
    tracker = FaceTracker(CLASSES)
    tracker.update([7, 3], [face_at(0.1), face_at(0.7)], np.stack([HAPPY, SAD]), 0, SHAPE)
    for step in range(1, 10):
        left, right = face_at(0.1 + step * 0.01), face_at(0.7 - step * 0.01)
        readings = tracker.update([3, 7], [right, left], np.stack([SAD, HAPPY]), step * 40, SHAPE)
        assert [(reading.face, reading.emotion) for reading in readings] == [(0, "happy"), (1, "sad")]


def test_another_person_in_the_same_place_begins_afresh():
    tracker = FaceTracker(CLASSES)
    tracker.update([0], [face_at(0.3)], HAPPY[None], 0, SHAPE)
    other = tracker.update([1], [face_at(0.3)], SAD[None], 40, SHAPE)[0]
    assert other.face == 1 and other.probabilities == pytest.approx(SAD)


def test_boxes_are_cut_at_the_frame():
    assert box_px((-0.1, 0.5, 0.3, 0.9), SHAPE) == (0, 320, 128, 160)
    assert box_px((1.2, 0.1, 0.3, 0.3), SHAPE)[2] == 0


def test_still_pictures_are_neither_smoothed_nor_uncertain():
    unsure = np.array([[0.26, 0.24, 0.25, 0.25]], np.float32)
    reading = read_picture(CLASSES, [face_at(0.3)], unsure, SHAPE)[0]
    assert (reading.emotion, reading.face) == ("fear", 0) and (reading.probabilities == unsure[0]).all()
