"""evaluate.py: options that do nothing are refused, models keep their names, sources may have a + in them."""

import numpy as np
import pytest
from conftest import run_here, user_error

import evaluate
from utils.config import UserError
from utils.data.face_set import FaceSet, missed_pictures
from utils.evaluation.metrics import evaluate_predictions
from utils.training.leave_one_source_out import LeftOut, calibrate, choose_left_out, summarise


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


def set_of(sources: dict[str, int]) -> FaceSet:
    source = np.repeat(list(sources), list(sources.values()))
    count = len(source)
    return FaceSet(
        np.zeros((count, 478, 3), np.float32),
        np.array(["happy", "sad"] * count)[:count],
        source=source,
        path=np.array([f"{number}.jpg" for number in range(count)]),
        missed=missed_pictures(["sad"], ["raf+own"], ["m.jpg"], ["test"], ["no face"]),
    )


def test_sources_with_a_plus_in_their_names_are_left_out():
    data = set_of({"kdef": 4, "raf": 6, "raf+own": 8})
    left_out = choose_left_out(data, ["raf+own+kdef", "raf+kdef"])
    assert [str(one) for one in left_out] == ["kdef", "raf", "raf+own", "raf+own+kdef", "raf+kdef"]
    assert [len(one.only(data)) for one in left_out] == [4, 6, 8, 12, 10]
    assert len(left_out[2].only(data).missed) == 1 and len(left_out[1].only(data).missed) == 0
    seen = LeftOut(("raf+own",)).without(data, np.arange(18) % 9)  # twins of all but one of the others
    assert seen.source.tolist() == ["kdef", "raf"] and len(seen.missed) == 0
    with pytest.raises(UserError, match="no source fer in --data, which has kdef"):
        choose_left_out(data, ["kdef+fer"])


def test_intervals_never_leave_0_and_1():
    data, right = set_of({"kdef": 10}), np.array([[0.9, 0.1], [0.1, 0.9]] * 5)
    data = data.select(slice(None), slice(0, 0))
    wrong = right[:, ::-1]
    for runs in ([right, right], [wrong, wrong], [right, wrong]):
        row = summarise("kdef", "left out", "crop", data, runs, ("happy", "sad"))
        low, high = row["interval"]
        assert 0 <= low <= row["balanced_accuracy"] <= high <= 1 and high - low > 0.1
    few = evaluate_predictions(np.array([0, 1]), np.array([0, 1]), ["happy", "sad"])
    low, high = few["balanced_accuracy_interval"]
    assert 0 < low < 0.5 and high == pytest.approx(1) and high <= 1


def test_a_calibration_that_nobody_can_reach_is_told():
    label = np.array([0, 1] * 50)
    guesses = np.tile([0.6, 0.4], (100, 1))
    assert calibrate({"a": (label, guesses), "b": (label, guesses)})["sure"] == 0
    right = np.where(label[:, None] == [0, 1], 0.9, 0.1)
    assert calibrate({"a": (label, right), "b": (label, right)})["sure"] == 1
