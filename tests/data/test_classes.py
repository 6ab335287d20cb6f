"""Class lists: own names, one spelling, what fits together; own classes through files and scripts."""

import numpy as np
import pytest
from conftest import run, user_error

from utils.config import EMOTIONS, UserError, note_once
from utils.data.classes import MOST_CLASSES, check_classes, choose_classes
from utils.data.face_set import load_face_set, save_face_set, save_txt
from utils.data.image_folder import find_labelled_images


@pytest.mark.parametrize(
    "names, classes",
    [
        (["wink", "Kiss", "neutral"], ("wink", "kiss", "neutral")),
        (["Joy", "SADNESS"], ("happy", "sad")),
        (["mouth  open", "Mund-zu", "å_1"], ("mouth open", "mund-zu", "å_1")),
        (["खुश", "दुखी"], ("खुश", "दुखी")),
        (["மகிழ்ச்சி", "ยิ้ม", "مُبتسم"], ("மகிழ்ச்சி", "ยิ้ม", "مُبتسم")),
        (["می\u200cخندد", "क्\u200dष"], ("می\u200cخندد", "क्\u200dष")),
    ],
)
def test_a_class_list_has_one_spelling(names, classes, capsys):
    note_once.cache_clear()
    assert check_classes(names) == check_classes(names) == classes
    said = "joy counts as happy (a known emotion)\nsadness counts as sad (a known emotion)\n"
    assert capsys.readouterr().err == (said if "Joy" in names else ""), "each once, and no mere case"


@pytest.mark.parametrize(
    "names, reason",
    [
        (["wink"], "1 class "),
        ([f"c{number}" for number in range(MOST_CLASSES + 1)], "2 to 9 classes"),
        (["happy", "smile", "sad"], "happy, smile are one class"),
        (["wink", "a/b"], "'a/b' has other characters"),
        (["wink", "a,b"], "other characters"),
        (["wink", "=1+1"], "other characters"),
        (["wink", "Uncertain"], "'Uncertain' is a word"),
        (["wink", "confidence"], "is a word"),
        (["wink", "NUL"], "is a word"),
        (["wink", "w" * 25], "longer than 24"),
        (["wink", " "], "other characters"),
        (["wink", "\u202eflip"], "other characters"),
        (["wink", "\u0941"], "other characters"),
    ],
)
def test_what_is_no_class_list_is_refused_by_name(names, reason):
    with pytest.raises(UserError, match=reason):
        check_classes(names)


def test_a_run_is_about_the_four_or_all_that_a_set_holds(capsys):
    assert choose_classes([*EMOTIONS, "wink"], None, "a.faces") == EMOTIONS
    assert "left out: wink" in capsys.readouterr().err
    assert choose_classes(["wink", "kiss", "happy"], None, "a.faces") == ("happy", "kiss", "wink")
    assert capsys.readouterr().err == "classes: happy, kiss, wink\n"
    assert choose_classes([*EMOTIONS, "wink"], ["wink", "Fearful"], "a.faces") == ("wink", "fear")
    with pytest.raises(UserError, match="no kiss in a.faces, which holds fear, happy, neutral, sad"):
        choose_classes(EMOTIONS, ["happy", "kiss"], "a.faces")
    with pytest.raises(UserError, match="a.faces: 1 class"):
        choose_classes(["wink"], None, "a.faces")


def tree(root, *places):
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(b"x")
    return root


def labels(root, classes=None):
    images, left_out = find_labelled_images(root, classes)
    return {image.path.relative_to(root).as_posix(): image.label for image in images}, left_out


def test_every_sub_folder_is_a_class(tmp_path, capsys):
    tree(tmp_path, "Wink/a.jpg", "Train/sleepy/old/b.jpg", "Joy/c.jpg", "d.jpg", "_tmp/e.jpg")
    found, left_out = labels(tmp_path)
    assert found == {"Wink/a.jpg": "wink", "Train/sleepy/old/b.jpg": "sleepy", "Joy/c.jpg": "happy"}
    assert "joy as happy" in capsys.readouterr().err
    assert sum(left_out.values()) == 2 and any(
        "_tmp (no class's folder, a name that has" in key for key in left_out
    )


def test_own_classes_stand_where_known_ones_do(tmp_path):
    tree(tmp_path, "ann/happy/a.jpg", "ann/wink/b.jpg", "bob/wink/c.jpg", "bob/d.jpg")
    images, left_out = find_labelled_images(tmp_path)
    assert {(image.subject, image.label) for image in images} == {
        ("ann", "happy"),
        ("ann", "wink"),
        ("bob", "wink"),
    }
    assert left_out == {f"in {tmp_path.name}/bob (no class's folder)": 1}


def test_classes_by_name_are_found_anywhere_and_others_left_out(tmp_path):
    tree(tmp_path, "ann/wink/a.jpg", "bob/wink/b.jpg", "bob/kiss/c.jpg", "bob/happy/d.jpg")
    found, left_out = labels(tmp_path, ("wink", "kiss"))
    assert found == {"ann/wink/a.jpg": "wink", "bob/kiss/c.jpg": "kiss", "bob/wink/b.jpg": "wink"}
    assert left_out == {f"in {tmp_path.name}/bob/happy (no class's folder)": 1}


def test_folders_of_many_persons_are_not_taken_for_classes(tmp_path):
    tree(tmp_path, *(f"p{number}/wink/a.jpg" for number in range(12)))
    with pytest.raises(UserError, match="12 folders that could be classes.*--classes"):
        find_labelled_images(tmp_path)


def test_own_classes_go_through_both_files(landmark_file, tmp_path):
    data = load_face_set(landmark_file).of_classes(["happy", "sad"])
    data.label = np.where(data.label == "happy", "mouth open", "öl")
    data.missed.label = "öl"
    save_txt(tmp_path / "a.txt", data, ("öl", "mouth open"))
    assert np.loadtxt(tmp_path / "a.txt", dtype=np.float32, encoding="utf-8").shape == (len(data), 1405)
    save_face_set(tmp_path / "a.faces", data)
    for name in ("a.txt", "a.faces"):
        np.testing.assert_array_equal(load_face_set(tmp_path / name).label, data.label)


def test_balance_takes_the_classes_asked_for(landmark_file, tmp_path):
    done = run(
        "balance_dataset.py", "--data", landmark_file, "--output", tmp_path / "b", "--classes", "sad", "happy"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.txt").read_text().startswith("# classes: sad, happy\n")
    assert set(load_face_set(tmp_path / "b.txt").label.tolist()) == {"happy", "sad"}
    refused = run(
        "balance_dataset.py", "--data", landmark_file, "--output", tmp_path / "c", "--classes", "sad", "wink"
    )
    assert "no wink in" in user_error(refused)
