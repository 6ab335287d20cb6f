"""A folder gives its pictures in order; what is left out is counted by reason; no link leads in circles."""

import os
from collections import Counter

import pytest

from utils.faces.images import is_image
from utils.folders import list_files, list_reasons

links = pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")


@pytest.fixture
def tree(tmp_path):
    """A folder with pictures and everything that lies beside pictures."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for place in (
        *("a.jpg", "B.JPEG", "c/d.jfif", "c/e.jpe", "c/f.avif", "2023/7.png", "~x.png", "=1.png", "-h.png"),
        *(
            "._a.jpg",
            ".thumbnails/a.jpg",
            "__MACOSX/c/._d.jpg",
            "@eaDir/a.jpg",
            "notes.txt",
            "more.txt",
            "f.heic",
        ),
        *("drawn/a.jpg", "drawn.csv", "noname"),
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).touch()
    outside.mkdir()
    (outside / "g.jpg").touch()
    (root / "link").symlink_to(outside)
    (root / "c" / "back").symlink_to(root)
    (outside / "over").symlink_to(outside)
    (root / "h.jpg").symlink_to(outside / "g.jpg")
    (root / "endless.jpg").symlink_to("endless.jpg")
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(root / "pipe.jpg")
    return root


@links
def test_pictures_are_found_and_the_rest_is_counted(tree):
    found, left_out = list_files(tree, is_image, without=[tree / "drawn", tree / "drawn.csv"])
    names = [path.relative_to(tree).as_posix() for path in found]
    own = ["2023/7.png", "-h.png", "=1.png", "a.jpg", "B.JPEG", "c/d.jfif", "c/e.jpe", "c/f.avif", "h.jpg"]
    assert names == [*own, "link/g.jpg", "~x.png"]
    assert left_out["no regular file"] == 3 and left_out["links to folders that are read already"] == 2
    assert left_out[".txt"] == 2 and left_out["output of this program"] == 2
    assert left_out["hidden"] == 4 and left_out["without a known suffix"] == 1
    assert any("pillow-heif" in reason for reason in left_out) or "f.heic" in names


def test_names_are_sorted_as_people_count(tmp_path):
    for name in ("10/1.png", "2/img10.png", "2/img9.png", "2/IMG11.png", "2/img9b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path, is_image)[0]]
    assert names == ["2/img9.png", "2/img9b.png", "2/img10.png", "2/IMG11.png", "10/1.png"]


@links
def test_a_web_of_links_comes_to_an_end(tmp_path):
    """Twelve folders, each with links to all: half a thousand million ways lead through them."""
    folders = [tmp_path / f"{number:02}" for number in range(12)]
    for folder in folders:
        folder.mkdir()
        (folder / "a.jpg").touch()
    for folder in folders:
        for other in folders:
            (folder / f"to{other.name}").symlink_to(other)
    found, left_out = list_files(tmp_path, is_image)
    assert {path.resolve() for path in found} == {folder / "a.jpg" for folder in folders}
    assert len(found) == len(folders) and left_out["links to folders that are read already"]


def test_reasons_are_said_with_the_most_frequent_first():
    assert list_reasons(Counter({"hidden": 1, ".txt": 3})) == "3 .txt, 1 hidden"
