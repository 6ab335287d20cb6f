"""A folder of pictures becomes a split set: read once, without copies, the test pictures apart."""

import shutil
from collections import Counter

import cv2
import pytest
from conftest import DATA

from utils.config import UserError
from utils.data import prepared
from utils.data.audit import CONTRADICTORY, COPIES
from utils.data.face_set import load_face_set


@pytest.fixture
def photos(pictures, tmp_path, monkeypatch):
    """A folder with 12 pictures of two classes, none for the test, and room for sets elsewhere."""
    monkeypatch.setattr(prepared, "DATA", tmp_path / "data")
    for name in ("happy", "sad"):
        shutil.copytree(pictures / "Train" / name.capitalize(), tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_pictures_are_read_once_and_split_without_copies(photos, capfd):
    some = sorted((photos / "happy").iterdir())
    shutil.copy(some[0], photos / "happy" / "copy.png")
    shutil.copy(DATA / "landscape.jpg", photos / "sad" / "landscape.jpg")
    first = prepared.prepare(photos, None, None, None, 2)
    assert first.left_out == Counter({COPIES: 1, "no face": 1})
    assert first.classes == ("happy", "sad")
    assert set(first.data.split.tolist()) == {"train", "val", "test"}
    assert load_face_set(first.files[0]).split.tolist() == first.data.split.tolist()
    shutil.copy(some[1], photos / "sad" / "other.png")
    second = prepared.prepare(photos, None, None, None, 2)
    assert f"going on: {len(first.data) + 2} of {len(first.data) + 3}" in capfd.readouterr().err
    assert second.left_out[CONTRADICTORY] == 1 and len(second.data) == len(first.data) - 1


def test_pictures_of_a_test_folder_are_not_learned_from(photos, pictures, tmp_path):
    tests = tmp_path / "tests"
    for name in ("happy", "sad"):
        shutil.copytree(pictures / "Test" / name.capitalize(), tests / name)
    twin = sorted((photos / "happy").iterdir())[0]
    picture = cv2.imread(str(twin))
    cv2.imwrite(str(tests / "happy" / "smaller.jpg"), cv2.resize(picture, None, fx=0.6, fy=0.6))
    found = prepared.prepare(photos, tests, None, None, 2).data
    of_test = found.part("test")
    assert set(of_test.source.tolist()) == {"photos_test"} and len(of_test) == 7
    assert set(found.select(found.split != "test").source.tolist()) == {"photos"}
    assert "happy/smaller.jpg" in of_test.path and f"happy/{twin.name}" not in found.path


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda root: shutil.rmtree(root / "sad"), "1 class"),
        (
            lambda root: [path.unlink() for path in sorted((root / "sad").iterdir())[3:]],
            "fewer than 10 faces of sad",
        ),
        (lambda root: [path.replace(root / path.name) for path in root.rglob("*.png")], "none in a folder"),
    ],
)
def test_what_can_not_be_learned_from_is_one_line(change, message, photos):
    change(photos)
    with pytest.raises(UserError, match=message):
        prepared.prepare(photos, None, None, None, 2)
