"""Fine-tuning for a group: better on its faces, bounded elsewhere, and no model where nothing is gained."""

import json
import shutil
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from conftest import run, user_error

from utils.config import EMOTIONS, MODELS, UserError
from utils.data.face_set import class_source_weights, load_face_set, save_face_set
from utils.model.bundle import NAME
from utils.model.classifier import EmotionClassifier
from utils.training import networks
from utils.training.base import embed_set, open_base
from utils.training.fine_tuning import Elsewhere, LastLayer, fine_tune_layer, fit_last_layer
from utils.training.group import choose_faces


@pytest.fixture(scope="module")
def moved(landmark_file, tmp_path_factory):
    """The tests' pictures as a file, labels interchanged so that the shipped model misreads most."""
    data = load_face_set(landmark_file)
    answers = EmotionClassifier(MODELS).predict(data.landmarks, data.blendshapes, crops=data.crop)
    index = data.class_index(EMOTIONS)
    orders = np.array(list(permutations(range(len(EMOTIONS)))))
    order = min(orders, key=lambda order: (order[index] == answers.argmax(axis=1)).mean())
    path = tmp_path_factory.mktemp("moved") / "moved.npz"
    save_face_set(path, replace(data, label=np.array(EMOTIONS)[order[index]]))
    return path


@pytest.fixture(scope="module")
def layer(moved):
    """The shipped model's last layer, what it is given of the pictures, and their moved labels."""
    data = load_face_set(moved)
    base, _ = open_base(MODELS, embed_set(data, MODELS))
    hidden = networks.last_hidden(base.network, base.seen(data))
    return LastLayer(*base.network.layers[-1].get_weights()), hidden, data.class_index(EMOTIONS)


def test_the_last_layer_learns_and_leaves_classes_without_a_label_alone(layer):
    base, hidden, label = layer
    known = label < 2
    weight = class_source_weights(label[known], np.zeros(known.sum()))
    tuned = fit_last_layer(base, hidden[known], label[known], weight)
    before, after = ((one.logits(hidden[known]).argmax(1) == label[known]).mean() for one in (base, tuned))
    assert after > before + 0.3
    np.testing.assert_array_equal(tuned.kernel[:, 2:], base.kernel[:, 2:])
    half = base.towards(tuned, 0.5).logits(hidden)
    np.testing.assert_allclose(half, (base.logits(hidden) + tuned.logits(hidden)) / 2, atol=1e-3)


def test_what_is_lost_elsewhere_is_bounded_and_unmeasured_half_of_the_change_is_kept(layer):
    base, hidden, label = layer
    source, fold = np.full(len(label), "moved"), np.arange(len(label)) % 5
    elsewhere = Elsewhere(hidden, base.logits(hidden).argmax(axis=1), np.empty(0, int), EMOTIONS)
    shares = {}
    for bound in (0.0, 0.1, 1.0):
        tuned = fine_tune_layer(base, hidden, label, source, fold, elsewhere, bound)
        lost = 1 - elsewhere.report(tuned.layer)["balanced_accuracy"]
        assert lost <= bound and (tuned.after > tuned.before or tuned.share == 0)
        shares[bound] = tuned.share
    assert shares[0.0] <= shares[0.1] < shares[1.0]
    assert fine_tune_layer(base, hidden, label, source, fold, None, 0.1).share == 0.5
    right = base.logits(hidden).argmax(axis=1)
    kept = fine_tune_layer(base, hidden, right, source, fold, None, 0.1)
    assert kept.share == 0 and kept.layer is base, "nothing can be gained where the base is right"


def test_a_group_gets_a_model_that_reads_it_better(moved, landmark_file, tmp_path):
    before = {path.name: path.read_bytes() for path in MODELS.iterdir() if path.is_file()}
    arguments = "--base", MODELS, "--data", moved, "--output", tmp_path / "group"
    done = run("train_model.py", *arguments, "--general", landmark_file, "--max-forgetting", 1)
    assert done.returncode == 0, done.stderr
    assert "of the change is kept" in done.stdout and "elsewhere (" in done.stdout
    info = json.loads((tmp_path / "group" / f"{NAME}.json").read_text())
    reports = info["metrics"]
    assert reports["test"]["balanced_accuracy"] >= reports["base"]["balanced_accuracy"] + 0.2
    data = load_face_set(moved)
    model = EmotionClassifier(tmp_path / "group")
    answers = model.predict(data.landmarks, data.blendshapes, crops=data.crop).argmax(axis=1)
    assert (answers == data.class_index(EMOTIONS)).mean() > 0.8 and model.name == "group"
    assert {path.name: path.read_bytes() for path in MODELS.iterdir() if path.is_file()} == before
    earlier = shutil.copytree(tmp_path / "group", tmp_path / "2") / f"{NAME}.json"
    content = earlier.read_bytes()
    again = run("train_model.py", "--base", tmp_path / "group", "--data", moved, "--output", tmp_path / "2")
    assert again.returncode == 0, again.stderr
    assert "the base model is kept" in again.stdout and earlier.read_bytes() == content
    assert f"{tmp_path / '2'} still holds an earlier model" in again.stdout


def test_what_does_not_fit_the_base_is_said(landmark_file, bundle):
    data = load_face_set(landmark_file)
    with pytest.raises(UserError, match="no two in common"):
        choose_faces(replace(data, label=np.full(len(data), "wink")), MODELS, None, "photos")
    with pytest.raises(UserError, match="not wink; leave out --base"):
        choose_faces(replace(data, label=np.where(data.label == "sad", "wink", data.label)), MODELS,
                     ["happy", "wink"], "photos")  # fmt: skip
    with pytest.raises(UserError, match="crops"):
        choose_faces(replace(data, crop=None), MODELS, None, "photos")
    few = data.select(np.flatnonzero((data.label != "sad") | (np.cumsum(data.label == "sad") <= 4)))
    with pytest.raises(UserError, match="fewer than 10 faces of sad"):
        choose_faces(few, MODELS, None, "photos")
    assert choose_faces(few, bundle, ["fear", "happy"], "photos").label.tolist().count("sad") == 0
    given = "--base", MODELS, "--data", landmark_file
    assert "leave out --network" in user_error(run("train_model.py", *given, "--network", "crop"))
