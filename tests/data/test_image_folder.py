"""Subject, session and split from folders and file names; people, and twins of a picture, on one side."""

from dataclasses import replace

import numpy as np
import pytest

from utils.config import UserError
from utils.data.face_set import concatenate, load_face_set
from utils.data.image_folder import apply_patterns, find_labelled_images
from utils.data.splits import assign_split


def make_tree(root, *places):
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).touch()


def test_hidden_files_are_no_pictures_and_any_number_of_folders_may_lie_above(tmp_path):
    above = "a/b/c/d/e/f/g/h"
    make_tree(tmp_path, f"{above}/ann/happy/1.jpg", f"{above}/bob/sad/2.jpg", f"{above}/bob/sad/._2.jpg")
    images, _ = find_labelled_images(tmp_path)
    assert [(image.label, image.subject) for image in images] == [("happy", "ann"), ("sad", "bob")]


def test_one_folder_above_all_is_no_person(tmp_path):
    make_tree(tmp_path, "images/happy/1.jpg", "images/sad/2.jpg")
    assert {image.subject for image in find_labelled_images(tmp_path)[0]} == {""}


def test_file_names_tell_subject_session_and_split(tmp_path):
    make_tree(tmp_path, "anger/F01_AAN.jpg", "sad/M12_BSA.jpg", "sad/test_0017.jpg", "happy/train_2.jpg")
    images, _ = find_labelled_images(tmp_path)
    images = apply_patterns(
        images, tmp_path, r"(?P<subject>[FM]\d\d)_(?P<session>[AB])", r"/(?P<split>train|test)_"
    )
    assert {(image.path.stem, image.subject, image.session, image.split) for image in images} == {
        ("F01_AAN", "F01", "A", ""),
        ("M12_BSA", "M12", "B", ""),
        ("test_0017", "", "", "test"),
        ("train_2", "", "", "train"),
    }
    for pattern in ("(", "F", "(?P<subject>Q+)"):
        with pytest.raises(UserError, match="--subject-pattern"):
            apply_patterns(images, tmp_path, pattern, None)
    with pytest.raises(UserError, match="no split"):
        apply_patterns(images, tmp_path, None, r"/(?P<split>F01)")


def test_few_people_are_said_and_many_are_kept_apart(landmark_file, capsys):
    data = load_face_set(landmark_file)
    data = replace(data, split=np.full(len(data), ""))
    for people, said in ((3, True), (8, False)):
        subject = np.array([f"person {number % people}" for number in range(len(data))])
        split = assign_split(replace(data, subject=subject), duplicate=np.arange(len(data)))
        assert set(split.split.tolist()) == {"train", "val", "test"}
        assert ("3 people are too few" in capsys.readouterr().err) == said
        sides = [len(set(split.split[split.subject == name].tolist())) for name in np.unique(split.subject)]
        assert (max(sides) > 1) == said


def test_a_twin_in_another_source_is_not_trained_on(landmark_file):
    data = load_face_set(landmark_file)
    one = replace(data, split=np.full(len(data), ""))
    other = replace(one, source=np.full(len(data), "other"))
    split = assign_split(concatenate([one, other]), seed=3)
    sides = {name: set(split.sha256[split.split == name].tolist()) for name in ("train", "val", "test")}
    assert not sides["train"] & (sides["val"] | sides["test"]) and not sides["val"] & sides["test"]
