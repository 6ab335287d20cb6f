"""Fine-tuning of a last layer: better on the faces it is for, bounded on others, no model where nothing is
gained; for a group's pictures and for a person's recordings."""

import json
import os
import shutil
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from conftest import run, run_here, user_error

import train_personal
from utils.config import EMOTIONS, MODELS, UserError
from utils.data.face_set import load_face_set, save_face_set
from utils.data.recordings import open_recordings
from utils.model.bundle import NAME
from utils.model.classifier import EmotionClassifier
from utils.training.fine_tuning import (
    UNMEASURED_ALPHA,
    Examples,
    LastLayer,
    Reference,
    fine_tune_layer,
    fit_last_layer,
    make_folds,
)
from utils.training.pretrained import embed_set, open_pretrained

OTHERS = ["wink", "kiss", "grin"] * 20


@pytest.fixture(scope="module")
def moved(landmark_file, tmp_path_factory):
    """The tests' pictures as a file, labels interchanged so that the shipped model misreads most."""
    data = load_face_set(landmark_file)
    predicted = EmotionClassifier(MODELS).predict(data.landmarks, data.blendshapes, data.crop).probabilities
    index = data.class_index(EMOTIONS)
    orders = np.array(list(permutations(range(len(EMOTIONS)))))
    order = min(orders, key=lambda order: (order[index] == predicted.argmax(axis=1)).mean())
    path = tmp_path_factory.mktemp("moved") / "moved.faces"
    save_face_set(path, replace(data, label=np.array(EMOTIONS)[order[index]]))
    return path


@pytest.fixture(scope="module")
def examples(moved):
    """The shipped model's last layer, and what it sees of the pictures, with their moved labels."""
    data = load_face_set(moved)
    base = open_pretrained(MODELS, embed_set(data, MODELS))
    rows = np.arange(len(data))
    return base.layer, Examples(base.hidden(data), data.class_index(EMOTIONS), np.zeros(len(data)), rows % 5)


@pytest.fixture(scope="module")
def recordings(moved, tmp_path_factory):
    """Two sessions of ann, whom the shipped model misreads: with embeddings; and of bob, without."""
    folder, data, classifier = tmp_path_factory.mktemp("personal"), load_face_set(moved), EmotionClassifier()
    embedding = classifier.predict_crops(data.crop).embedding
    for session in (0, 1):
        for subject in ("ann", "bob"):
            with open_recordings(subject, folder) as store:
                for row in range(session, len(data), 2):
                    kept = (embedding[row], classifier.crop_sha256) if subject == "ann" else ()
                    face = data.landmarks[row], data.blendshapes[row], data.label[row]
                    store.append(str(session), *face, *kept)
    return folder


def test_the_last_layer_learns_and_leaves_classes_without_a_label_alone(examples):
    base, everything = examples
    known = everything.select(everything.label < 2)
    tuned = fit_last_layer(base, known)
    before, after = ((one.logits(known.hidden).argmax(1) == known.label).mean() for one in (base, tuned))
    assert after > before + 0.3
    np.testing.assert_array_equal(tuned.kernel[:, 2:], base.kernel[:, 2:])
    half = base.towards(tuned, 0.5).logits(known.hidden)
    np.testing.assert_allclose(half, (base.logits(known.hidden) + tuned.logits(known.hidden)) / 2, atol=1e-3)


def test_a_new_last_layer_learns_classes_from_nothing(examples):
    base, everything = examples
    new = fit_last_layer(LastLayer.zeros(len(base.kernel), 4), everything)
    assert (new.logits(everything.hidden).argmax(axis=1) == everything.label).mean() > 0.9


def test_what_is_forgotten_is_bounded_and_unmeasured_at_most_half_of_the_change_is_kept(examples):
    base, learned = examples
    right = base.logits(learned.hidden).argmax(axis=1)
    reference = Reference("base", learned.hidden, right)
    alphas = {}
    for bound in (0.0, 0.1, 1.0):
        tuned = fine_tune_layer(base, learned, reference, bound)
        assert 1 - reference.balanced_accuracy(tuned.layer) <= bound
        alphas[bound] = tuned.alpha
    assert alphas[0.0] <= alphas[0.1] < alphas[1.0]
    assert fine_tune_layer(base, learned, None, 0.1).alpha == UNMEASURED_ALPHA == 0.5


def test_a_whole_session_is_held_out_or_the_last_third_of_a_single_one():
    label = np.array([0] * 9 + [1] * 6)

    def folds(group):
        return make_folds(label, np.array(group))

    assert [sorted(test) for _, test in folds(["a"] * 7 + ["b"] * 8)] == [[0, 1, 2, 3, 4, 5, 6]], (
        "a fold whose training part lacks a class is no test"
    )
    ((train, test),) = folds(["a"] * 15)
    assert sorted(test) == [6, 7, 8, 13, 14] and not set(train) & set(test)
    assert max(row for row in train if label[row] == 0) < min(row for row in test if label[row] == 0)


def test_a_group_gets_a_model_that_reads_it_better(moved, landmark_file, tmp_path):
    before = {path.name: path.read_bytes() for path in MODELS.iterdir() if path.is_file()}
    arguments = "--base", MODELS, "--data", moved, "--output", tmp_path / "group"
    done = run_here("train_model.py", *arguments, "--general", landmark_file, "--max-forgetting", 1)
    assert done.returncode == 0, done.stderr
    assert "of the change is kept; other faces" in done.stdout
    info = json.loads((tmp_path / "group" / f"{NAME}.json").read_text())
    reports = info["metrics"]
    assert reports["test"]["balanced_accuracy"] >= reports["base"]["balanced_accuracy"] + 0.2
    data = load_face_set(moved)
    model = EmotionClassifier(tmp_path / "group")
    predicted = model.predict(data.landmarks, data.blendshapes, data.crop).probabilities.argmax(axis=1)
    assert (predicted == data.class_index(EMOTIONS)).mean() > 0.8 and model.name == "group"
    assert {path.name: path.read_bytes() for path in MODELS.iterdir() if path.is_file()} == before


def test_where_nothing_is_gained_no_model_is_written_and_the_status_says_so(moved, tmp_path):
    """The test part has the labels that the base predicts, the others have the moved ones."""
    earlier = shutil.copytree(MODELS, tmp_path / "earlier") / f"{NAME}.json"
    content = earlier.read_bytes()
    data = load_face_set(moved)
    predicted = EmotionClassifier().predict(data.landmarks, data.blendshapes, crops=data.crop).probabilities
    split = np.array(["test", "val", "train", "train"])[np.arange(len(data)) % 4]
    label = np.where(split == "test", np.array(EMOTIONS)[predicted.argmax(axis=1)], data.label)
    save_face_set(tmp_path / "set.faces", replace(data, label=label, split=split))
    given = "--base", MODELS, "--data", tmp_path / "set.faces", "--output", tmp_path / "earlier"
    error = user_error(run_here("train_model.py", *given, "--max-forgetting", 1))
    assert "no model is written" in error and "still holds an earlier model" in error
    assert earlier.read_bytes() == content


@pytest.mark.parametrize(
    "change, options, fragment",
    [
        ({"label": "wink"}, [], "1 class"),
        ({}, ["--classes", "happy", "wink"], "no wink in"),
        ({"crop": None}, [], "hold none"),
        ({}, ["--network", "crop"], "--network does nothing with --base"),
        ({"few": "sad"}, [], "fewer than 10 faces of sad"),
        ({"label": OTHERS}, [], "add --network hybrid"),
    ],
)
def test_what_does_not_fit_the_base_is_said(change, options, fragment, landmark_file, tmp_path):
    data = load_face_set(landmark_file)
    if "few" in change:
        rare = data.label == change["few"]
        data = data.select(np.flatnonzero(~rare | (np.cumsum(rare) <= 4)))
    elif change:
        ((name, value),) = change.items()
        data = replace(data, **{name: value and np.resize(value, len(data))})
    save_face_set(tmp_path / "set.faces", data)
    given = "--base", MODELS, "--data", tmp_path / "set.faces", "--output", tmp_path / "model"
    assert fragment in user_error(run_here("train_model.py", *given, *options))


@pytest.mark.parametrize(
    "subject, needs_crops, system", [("ann", True, "here"), ("bob", False, "windows")], indirect=["system"]
)
def test_a_person_gets_a_model_judged_on_sessions_held_out(
    subject, needs_crops, system, recordings, moved, tmp_path
):
    done = run_here(
        *("train_personal.py", "--subject", subject, "--data", recordings, "--output", tmp_path / "model"),
        *("--max-forgetting", 1),
    )
    assert done.returncode == 0, done.stderr
    assert "held out, each session in turn" in done.stdout
    assert ("landmark network alone is fine-tuned" in done.stderr) != needs_crops
    model, data = EmotionClassifier(tmp_path / "model"), load_face_set(moved)
    reports = json.loads((tmp_path / "model" / f"{NAME}.json").read_text())["metrics"]
    assert reports["test"]["faces"] == len(data)
    assert reports["test"]["balanced_accuracy"] > reports["base"]["balanced_accuracy"] + 0.2
    predicted = model.predict(data.landmarks, data.blendshapes, data.crop).probabilities.argmax(axis=1)
    assert model.name == subject and model.needs_crops == needs_crops
    assert (predicted == data.class_index(EMOTIONS)).mean() > 0.8
    if needs_crops:  # the base row is the hybrid itself, as one network
        base = (
            EmotionClassifier()
            .predict(data.landmarks, data.blendshapes, data.crop)
            .probabilities.argmax(axis=1)
        )
        recall = [(base == index)[data.label == name].mean() for index, name in enumerate(EMOTIONS)]
        assert reports["base"]["balanced_accuracy"] == pytest.approx(np.mean(recall), abs=0.02)


def test_nobody_is_forgotten_while_a_model_learns_from_them(recordings, tmp_path, monkeypatch):
    """Else the model would be written after all was said to be deleted."""
    folder, told = shutil.copytree(recordings, tmp_path / "personal"), []

    def forget_meanwhile(*_):
        told.append(user_error(run("record_dataset.py", "--forget", "ann", "--yes", "--data", folder)))
        raise UserError("stop here")

    monkeypatch.setattr(train_personal, "open_pretrained", forget_meanwhile)
    given = "--subject", "ann", "--data", folder, "--output", tmp_path / "model"
    assert "stop here" in user_error(run_here("train_personal.py", *given))
    assert "another run" in told[0] and not (tmp_path / "model").exists()


def test_what_a_person_s_model_forgets_is_measured_and_its_files_are_private(
    recordings, landmark_file, tmp_path
):
    done = run_here(
        *("train_personal.py", "--subject", "ann", "--data", recordings, "--output", tmp_path / "model"),
        *("--general", landmark_file, "--max-forgetting", 0.4),
    )
    assert done.returncode == 0, done.stderr
    if os.name == "posix":
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
        assert (tmp_path / "model").stat().st_mode & 0o777 == 0o700 and modes == {0o600}
    found = json.loads((tmp_path / "model" / f"{NAME}.json").read_text())["metrics"]["reference"]
    data = load_face_set(landmark_file).part("test")
    model = EmotionClassifier(tmp_path / "model")
    predicted = model.predict(data.landmarks, data.blendshapes, data.crop).probabilities.argmax(axis=1)
    recall = [(predicted == index)[data.label == name].mean() for index, name in enumerate(EMOTIONS)]
    before, after = found["before"], found["after"]
    assert after == pytest.approx(np.mean(recall), abs=0.02) and before - after <= 0.4
    assert f"{before:.3f} before, {after:.3f} after" in done.stdout


@pytest.mark.parametrize(
    "options, fragment",
    [
        (["--max-forgetting", "0.1"], "does nothing without --base"),
        (["--recipe", "fine-tuned"], "add --network hybrid"),
        (["--test-images", "photos"], "does nothing without --images"),
    ],
)
def test_options_that_do_nothing_are_refused(options, fragment, landmark_file, tmp_path):
    given = "--data", landmark_file, "--output", tmp_path
    assert fragment in user_error(run_here("train_model.py", *given, *options))


@pytest.mark.parametrize(
    "options, fragment",
    [
        (["--subject", "ann", "--output", MODELS], "never overwritten"),
        (["--subject", "zoe"], "recorded: ann, bob"),
        (["--subject", "cid"], "too few recordings to hold any out: 1 session(s) of cid with 3 happy;"),
    ],
)
def test_what_can_not_be_trained_on_is_one_line(options, fragment, recordings, tmp_path):
    folder = shutil.copytree(recordings, tmp_path / "personal") if "cid" in options else recordings
    if "cid" in options:
        with open_recordings("cid", folder) as store:
            for _ in range(3):
                store.append("1", np.zeros((478, 3)), np.zeros(52), "happy")
    assert fragment in user_error(run_here("train_personal.py", "--data", folder, *options))
