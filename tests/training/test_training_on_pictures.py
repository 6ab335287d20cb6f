"""From a folder of pictures to a model and a page about it, by one command."""

import os
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import run_here

import train_model
from utils.config import EMOTIONS
from utils.data import prepared
from utils.data.audit import COPIES
from utils.data.face_set import load_face_set
from utils.data.splits import assign_split
from utils.evaluation.advice import advise
from utils.evaluation.predictions import Pictures, of_probabilities
from utils.model.classifier import EmotionClassifier


@pytest.fixture(scope="module")
def faces(landmark_file):
    """The tests' faces, split."""
    data = assign_split(load_face_set(landmark_file))
    return prepared.Prepared([landmark_file], data, EMOTIONS, Counter())


def test_one_command_makes_a_model_and_a_page(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "DATA", tmp_path / "data")
    photos, output = shutil.copytree(pictures, tmp_path / "photos"), tmp_path / "model"
    shutil.rmtree(photos / "Train" / "Fear")
    shutil.rmtree(photos / "Test" / "Fear")
    shutil.copy(pictures / "Test" / "Fear" / "face_263.png", photos / "Test" / "Sad")  # read, and wrong
    done = run_here("train_model.py", "--images", photos, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "step 3 of 3" in done.stderr and f"next: python scr/main.py --model {output}" in done.stdout
    assert EmotionClassifier(output).classes == ("happy", "neutral", "sad")
    page = (output / "report.html").read_text(encoding="utf-8")
    for words in (
        "What model learned",
        "happy",
        "The shipped model was fine-tuned",
        "read as",
        "data:image/jpeg",
    ):
        assert words in page
    assert "://" not in page and "<script" not in page
    assert os.name == "nt" or (output / "report.html").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "scratch, enough, classes, options, kept",
    [
        (0.9, 1, EMOTIONS, [], "from scratch"),
        (0.8, 1, EMOTIONS, [], "fine-tuned"),
        (0.9, 1000, EMOTIONS, [], "fine-tuned"),
        (0.1, 1000, ("sad", "wink"), [], "from scratch"),
        (0.1, 1000, EMOTIONS, ["--network", "crop"], "from scratch"),
        (0.9, 1, EMOTIONS, ["--base", "models"], "fine-tuned"),
    ],
)
def test_the_start_is_chosen_by_options_numbers_and_validation_part(
    scratch, enough, classes, options, kept, faces, monkeypatch
):
    def start(name, accuracy):
        return lambda args, faces: train_model.Trial(name, lambda: accuracy, lambda: (name, ""))

    monkeypatch.setattr(train_model, "fine_tune", start("fine-tuned", 0.8))
    monkeypatch.setattr(train_model, "train_from_scratch", start("from scratch", scratch))
    monkeypatch.setattr(train_model, "ENOUGH_FOR_SCRATCH", enough)
    args = train_model.build_parser().parse_args(["--images", "photos", *options])
    assert train_model.train(args, replace(faces, classes=classes))[0] == kept


def test_advice_names_what_is_wrong_and_nothing_else(faces):
    test = faces.data.part("test")
    right = np.eye(len(EMOTIONS))[test.class_index(EMOTIONS)]
    sad_as_fear = np.where((test.label == "sad")[:, None], np.eye(len(EMOTIONS))[0], right)

    def advice(probabilities, left_out, **columns):
        found = of_probabilities("model", EMOTIONS, Pictures.of_set(test), probabilities)
        return " ".join(advise(replace(faces.data, **columns), left_out, found))

    nothing = Counter()
    people = {count: np.arange(len(faces.data)) % count for count in (3, 20)}
    plain = advice(right, nothing, subject=people[20].astype(str))
    assert "A larger test" in plain and "learn from, of each class" in plain
    for words in ("read right", "other people", "copies", "none was found", "one person"):
        assert words not in plain
    assert "More pictures of sad: 0% of them are read right" in advice(sad_as_fear, nothing)
    assert "differ plainly from fear" in advice(sad_as_fear, nothing)
    assert "all show 3, the same" in advice(right, nothing, subject=people[3].astype(str))
    assert "one person" in advice(right, nothing)
    whole = len(faces.data) + 30
    assert f"30 of {whole} pictures were there already" in advice(right, Counter({COPIES: 30}))
    assert f"on 30 of {whole} pictures none was found" in advice(right, Counter({"no face": 30}))
