"""evaluate.py: options that do nothing are refused, models keep their names, sources may have a + in them."""

import numpy as np
import pytest
from conftest import run_here, user_error

import evaluate
from utils.config import EMOTIONS, UserError
from utils.evaluation.metrics import evaluate_predictions
from utils.training.leave_one_source_out import (
    LeftOut,
    calibrate,
    choose_rounds,
    choose_weights,
    report,
    summarise,
)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--images", "x", "--seeds", "3"], "--seeds does nothing without --leave-one-source-out"),
        (["--images", "x", "--foreign", "y", "--together", "a+b"], "--foreign and --together do nothing"),
        (["--images", "x", "--split", "test"], "--split does nothing with --images"),
        (["--images", "x", "--reread"], "--reread does nothing with --images"),
        (["--data", "x", "--labels", "y"], "--labels does nothing with --data"),
        (["--data", "x", "--jobs", "1"], "--jobs does nothing with --data, unless --reread is given"),
        (["--data", "x", "--leave-one-source-out", "--split", "test"], "--split does nothing with --leave"),
        (["--images", "x", "--leave-one-source-out"], "name them with --data"),
    ],
)
def test_options_that_do_nothing_are_refused(arguments, told):
    assert told in user_error(run_here("evaluate.py", *arguments))


@pytest.mark.parametrize(
    ("path", "name"),
    [("models/run1.5", "run1.5"), ("landmarks", "landmarks"), ("models/seven:crop", "seven-crop")],
)
def test_models_keep_their_names(path, name):
    assert evaluate.system_name(path) == name


def test_sources_with_a_plus_in_their_names_are_left_out():
    sources = ["kdef", "raf", "raf+own"]
    assert choose_rounds(sources, []) == [("kdef",), ("raf",), ("raf+own",)]
    assert choose_rounds(sources, ["raf+own+kdef"]) == [("raf+own", "kdef"), ("raf",)]
    assert choose_rounds(sources, ["raf+kdef"]) == [("raf", "kdef"), ("raf+own",)]
    with pytest.raises(UserError, match="no source fer in --data, which has kdef"):
        choose_rounds(sources, ["kdef+fer"])
    with pytest.raises(UserError, match="needs another"):
        choose_rounds(["kdef"], [])


CLASSES = ("anger", "fear", "happy", "neutral", "sad")


def left_out(source: str, label: np.ndarray, *seeds: np.ndarray, **parts) -> LeftOut:
    """What models predict of a source, by default the parts alike."""
    parts = parts or {"landmarks": seeds, "crop": seeds}
    return LeftOut(source, "left out", label, np.empty(0, int), {k: list(v) for k, v in parts.items()})


def sure_of(label: np.ndarray, classes: int = len(CLASSES)) -> np.ndarray:
    return np.full((len(label), classes), 0.1 / (classes - 1)) + np.eye(classes)[label] * (
        0.9 - 0.1 / (classes - 1)
    )


def test_intervals_never_leave_0_and_1():
    label = np.arange(10) % 2
    right, wrong = sure_of(label, 2), sure_of(1 - label, 2)
    for runs in ([right, right], [wrong, wrong], [right, wrong]):
        row = summarise(left_out("kdef", label, *runs), "crop", ("happy", "sad"))
        low, high = row["interval"]
        assert 0 <= low <= row["balanced_accuracy"] <= high <= 1 and high - low > 0.1
    few = evaluate_predictions(np.array([0, 1]), np.array([0, 1]), ["happy", "sad"])
    low, high = few["balanced_accuracy_interval"]
    assert 0 < low < 0.5 and high == pytest.approx(1) and high <= 1


def test_a_calibration_that_nobody_can_reach_is_told():
    label = np.array([0, 1] * 50)
    guesses, right = np.tile([0.6, 0.4], (100, 1)), sure_of(label, 2)
    assert calibrate([left_out(name, label, guesses) for name in "ab"], "crop")["sure"] == 0
    assert calibrate([left_out(name, label, right) for name in "ab"], "crop")["sure"] == 1


def test_the_better_part_of_a_hybrid_weighs_more_on_sources_left_out():
    label = np.arange(100) % 5
    right, wrong = sure_of(label) ** 0.3, np.roll(sure_of(label), 1, axis=1)
    found = [left_out(name, label, landmarks=[wrong**9], crop=[right]) for name in "ab"]
    usual = {"landmarks": 0.2, "crop": 0.8}
    weights, means = choose_weights(found, CLASSES, usual)
    assert weights["landmarks"] == 0 and means[0.0] == 1
    found = [left_out(name, label, landmarks=[sure_of(label)], crop=[wrong**0.9]) for name in "ab"]
    assert choose_weights(found, CLASSES, usual)[0]["landmarks"] == 0.5
    found = [left_out(name, label, sure_of(label)) for name in "ab"]
    assert choose_weights(found, CLASSES, usual)[0] == usual


def test_figures_are_given_for_all_classes_and_for_the_four(capsys):
    label = np.arange(100) % 5
    four = label[label > 0]  # a source without `anger`
    found = [left_out("kdef", label, sure_of(label)), left_out("affectnet", four, sure_of(four))]
    written = report(found, "hybrid", CLASSES, {"landmarks": 0.2, "crop": 0.8})
    of_four = [row for row in written["rows"] if row["classes"] == list(EMOTIONS)]
    assert [(row["source"], row["faces"]) for row in of_four[::3]] == [("kdef", 80), ("affectnet", 80)]
    assert all(row["balanced_accuracy"] == 1 for row in written["rows"])
    assert written["vocabularies"][0]["classes"] == list(EMOTIONS)
    assert {"temperature", "threshold"} < set(written["calibration"])
    assert "mean of 1 sources left out that have all 5 classes: 1.000" in capsys.readouterr().out


def test_a_narrower_vocabulary_has_the_same_shares():
    probabilities = np.array([[0.5, 0.2, 0.1, 0.1, 0.1]])
    (one,) = left_out("a", np.array([1]), probabilities).narrowed(CLASSES, EMOTIONS).parts["crop"]
    np.testing.assert_allclose(one, [[0.4, 0.2, 0.2, 0.2]], rtol=1e-5)
