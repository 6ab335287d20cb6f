"""Calm labels: the same at any frame rate, slow to change, quick to forget."""

import numpy as np
import pytest

from utils.app.smoothing import MARGIN, RESET_MS, TIME_CONSTANT_MS, UNCERTAIN, EmotionSmoother, FaceSmoothers

CLASSES = ("fear", "happy", "neutral", "sad")
HAPPY = np.array([0.02, 0.9, 0.05, 0.03], np.float32)
SAD = np.array([0.03, 0.02, 0.05, 0.9], np.float32)


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


def test_a_face_unseen_for_long_starts_afresh_and_people_are_smoothed_apart():
    smoothers = FaceSmoothers(CLASSES)
    smoothers.of_person(7, 0).update(HAPPY, 0)
    smoothers.of_person(3, 0).update(SAD, 0)
    hidden = smoothers.of_person(7, RESET_MS)
    hidden.update(SAD, RESET_MS)
    assert hidden.probabilities[1] > 0.1  # still remembers
    back = smoothers.of_person(7, 2 * RESET_MS + 1)
    assert back.update(SAD, 2 * RESET_MS + 1) == ("sad", pytest.approx(0.9))
    assert smoothers.of_person(3, 2 * RESET_MS + 1).probabilities is None
