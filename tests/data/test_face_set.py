"""Files, folders, splits: exact round trips, nothing lost, no picture on two sides."""

import contextlib
import shutil
import sqlite3
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import DATA, SMILE, frames_of, run, user_error

from utils.config import EMOTIONS, UserError, canonical_emotion
from utils.data.extraction import extract
from utils.data.face_set import FaceSet, concatenate, load_face_set, open_file, save_face_set, save_txt
from utils.data.image_folder import find_labelled_images, read_ferplus
from utils.data.splits import (
    assign_split,
    class_source_weights,
    find_duplicates,
    make_split,
    prefix_group,
    split_groups,
)


@pytest.fixture(scope="module")
def data(landmark_file) -> FaceSet:
    return load_face_set(landmark_file)


@pytest.mark.usefixtures("system")
def test_round_trip_is_exact(data, tmp_path):
    save_face_set(tmp_path / "a.faces", data)
    again = load_face_set(tmp_path / "a.faces")
    for name, values in vars(data).items():
        np.testing.assert_array_equal(getattr(again, name), values, err_msg=name)
    save_face_set(tmp_path / "b.faces", again)
    assert (tmp_path / "a.faces").read_bytes() == (tmp_path / "b.faces").read_bytes()


def test_txt_round_trip_is_exact_and_numpy_reads_it(data, tmp_path):
    save_txt(tmp_path / "a.txt", data)
    table = np.loadtxt(tmp_path / "a.txt", dtype=np.float32)
    assert table.shape == (len(data), 1405)
    again = load_face_set(tmp_path / "a.txt")
    np.testing.assert_array_equal(again.landmarks, data.landmarks[:, :468])
    np.testing.assert_array_equal(again.label, data.label)


def test_extraction_finds_faces_labels_and_splits(data, pictures):
    assert len(data) + len(data.missed) == len(list(pictures.rglob("*.png")))
    assert len(data) > 0.9 * (len(data) + len(data.missed))
    assert set(data.label.tolist()) == set(EMOTIONS)
    assert set(data.split.tolist()) == {"train", "test"}
    assert data.landmarks.shape[1:] == (478, 3) and data.blendshapes.shape[1:] == (52,)
    assert all((pictures / path).is_file() for path in data.path.tolist())
    assert (data.width > 0).all() and data.sha256.all() and data.encoding.all()


def test_landmarks_are_isotropic(data):
    """Eyes are as far apart on the tilted face, whatever the picture's shape: x and y share one unit."""
    three_d = np.linalg.norm(data.landmarks[:, 33] - data.landmarks[:, 263], axis=1)
    height = np.linalg.norm(data.landmarks[:, 168] - data.landmarks[:, 2], axis=1)
    assert 0.4 < np.median(height / three_d) < 0.8


@pytest.mark.parametrize(
    "name, emotion",
    [
        ("Angry", "anger"),
        ("happiness", "happy"),
        ("SADNESS", "sad"),
        ("Surprised", "surprise"),
        ("neutral", "neutral"),
        ("holiday", None),
    ],
)
def test_folder_names_have_synonyms(name, emotion):
    assert canonical_emotion(name) == emotion


def test_any_tree_of_emotion_folders_is_read(tmp_path):
    for place in (
        "Train/Happy/a.jpg",
        "TEST/sadness/b.png",
        "ann/fear/c.jpg",
        "neutral/d.bmp",
        "e.jpg",
        "neutral/notes.txt",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"x")
    images, left_out = find_labelled_images(tmp_path)
    assert {(image.path.name, image.label, image.split, image.subject) for image in images} == {
        ("a.jpg", "happy", "train", ""),
        ("b.png", "sad", "test", ""),
        ("c.jpg", "fear", "", "ann"),
        ("d.bmp", "neutral", "", ""),
    }
    assert left_out == {f"in {tmp_path.name} (no class's folder)": 1}


def test_ferplus_votes_are_read_and_kept(tmp_path):
    (tmp_path / "FER2013Train").mkdir()
    for name in ("fer1.png", "fer2.png", "fer3.png", "fer4.png"):
        cv2.imwrite(str(tmp_path / "FER2013Train" / name), np.zeros((48, 48), np.uint8))
    (tmp_path / "labels.csv").write_text(
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
        "Training,fer1.png,1,0,0,8,0,0,1,0,0,0\nTraining,fer2.png,5,5,0,0,0,0,0,0,0,0\nTraining,fer3.png,0,0,0,0,0,0,0,0,1,9\n"
    )
    images, left_out = read_ferplus(tmp_path, tmp_path / "labels.csv")
    assert [(image.path.name, image.label, image.split, image.votes) for image in images] == [
        ("fer1.png", "sad", "train", (1, 0, 0, 8, 0, 0, 1, 0, 0, 0))
    ]
    assert left_out == {"votes tied": 1, "voted unknown or no face": 1, "not in the label file": 1}


def test_damaged_and_foreign_files_are_named(tmp_path, landmark_file):
    (tmp_path / "half.faces").write_bytes(landmark_file.read_bytes()[:200_000])
    (tmp_path / "garbage.faces").write_bytes(b"not a set" * 1000)
    (tmp_path / "empty.faces").touch()
    (tmp_path / "short.txt").write_text("1 2 3\n4 5 6\n")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.faces")) as file:
        file.execute("CREATE TABLE picture (id)")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=path.name):
            np.asarray(load_face_set(path).landmarks)
    with pytest.raises(UserError, match="no set of faces"):
        load_face_set(tmp_path / "missing.faces")


def test_a_set_of_an_earlier_version_is_named_with_the_way_to_a_new_one(tmp_path):
    np.savez(tmp_path / "old.npz", label=np.array(["sad"]))
    with pytest.raises(UserError, match="old.npz is .* earlier version.*extract_landmarks.py --images"):
        load_face_set(tmp_path / "old.npz")


def test_landmarks_that_are_no_numbers_are_refused_when_they_are_read(data, tmp_path):
    landmarks = data.landmarks[:]
    landmarks[3, 100, 1] = np.nan
    save_face_set(tmp_path / "nan.faces", replace(data, landmarks=landmarks))
    with pytest.raises(UserError, match="nan.faces is damaged"):
        load_face_set(tmp_path / "nan.faces").landmarks[:10]


@pytest.mark.usefixtures("system")
def test_a_set_that_is_being_written_is_neither_read_nor_written(data, pictures, tmp_path):
    save_face_set(tmp_path / "a.faces", data)
    with open_file(tmp_path / "a.faces") as file:
        file.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="being written by another run"):
            load_face_set(tmp_path / "a.faces")
        done = run("extract_landmarks.py", "--images", pictures, "--output", tmp_path / "a.faces")
        assert "a.faces is being written by another run" in user_error(done)


def extracted(folder, **options) -> FaceSet:
    images, _ = find_labelled_images(folder)
    extract(images, folder, folder.name, folder / "a.faces", 1)
    return replace(load_face_set(folder / "a.faces"), **options)


def test_a_picture_encoded_again_resized_or_cropped_is_the_same_and_another_face_is_not(portrait, tmp_path):
    group = cv2.imread(str(DATA / "group.jpg"))
    height, width = portrait.shape[:2]
    copies = {
        "a.png": portrait,
        "b.jpg": portrait,
        "c.png": cv2.resize(portrait, (200, 200), interpolation=cv2.INTER_AREA),
        "d.png": portrait[height // 20 : -height // 25, width // 30 : -width // 20],
        "other.png": group[:, : group.shape[1] // 2],
        "another.png": group[:, group.shape[1] // 2 :],
    }
    (tmp_path / "happy").mkdir()
    for name, image in copies.items():
        cv2.imwrite(str(tmp_path / "happy" / name), image, [cv2.IMWRITE_JPEG_QUALITY, 40])
    shutil.copy(tmp_path / "happy" / "d.png", tmp_path / "happy" / "e.png")
    data = extracted(tmp_path)
    names = [Path(path).name for path in data.path.tolist()]
    first = [names[number] for number in find_duplicates(data)]
    assert dict(zip(names, first)) == {
        **dict.fromkeys(("a.png", "b.jpg", "c.png", "d.png", "e.png"), "a.png"),
        "another.png": "another.png",
        "other.png": "other.png",
    }


def test_moments_of_one_person_before_one_camera_are_pictures_of_their_own(tmp_path):
    frames = frames_of(SMILE)
    for label, numbers in (("neutral", range(0, 22)), ("happy", range(46, 72))):
        (tmp_path / label).mkdir()
        for number in numbers:
            cv2.imwrite(str(tmp_path / label / f"{number:03}.jpg"), frames[number])
    data = extracted(tmp_path)
    assert len(data) == 48 and len(np.unique(find_duplicates(data))) == 48
    done = run("balance_dataset.py", "--data", tmp_path / "a.faces", "--output", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "0 further copies of 48 pictures; 0 pictures dropped" in done.stdout
    assert len(load_face_set(tmp_path / "b.faces")) == 48


def test_a_chain_of_likenesses_makes_no_group(data):
    """Each face is like the next one, the first is not like the last."""
    start, end = data.crop[0].astype(np.float32), data.crop[len(data) - 1].astype(np.float32)
    count = 40
    crops = np.stack([start + (end - start) * number / count for number in range(count)]).astype(np.uint8)
    chain = replace(
        data.select(np.zeros(count, int)),
        crop=crops,
        sha256=np.array([str(number) for number in range(count)]),
        encoding=np.array([str(number) for number in range(count)]),
    )
    groups = np.unique(find_duplicates(chain))
    assert 3 <= len(groups) < count


def test_like_faces_take_time_and_memory_by_their_number(data):
    """All look the same: comparing each with each would take 9 million comparisons."""
    count = 3_000
    many = replace(
        data.select(np.zeros(count, int)),
        crop=np.repeat(data.crop[:1], count, axis=0),
        sha256=np.array([str(number) for number in range(count)]),
        encoding=np.array([str(number % 7) for number in range(count)]),
    )
    tracemalloc.start()
    find_duplicates(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_splits_share_no_picture_and_no_subject(data):
    twice = concatenate([data, data])
    subjects = np.array([f"p{index % 7}" if index < 30 else "" for index in range(len(twice))])
    split = assign_split(replace(twice, split=np.full(len(twice), ""), subject=subjects))
    assert len(split) == len(twice) and set(split.split.tolist()) == {"train", "val", "test"}
    groups = split_groups(split)
    for number in np.unique(groups):
        assert len(set(split.split[groups == number].tolist())) == 1
    sides = {name: set(split.sha256[split.split == name].tolist()) for name in ("train", "val", "test")}
    assert (
        not sides["train"] & sides["test"]
        and not sides["train"] & sides["val"]
        and not sides["val"] & sides["test"]
    )


def test_split_is_stratified_and_has_the_published_parts():
    label = np.array(["sad"] * 300 + ["fear"] * 100)
    split = make_split(label, np.arange(400))
    assert Counter(split.tolist()) == {"train": 288, "val": 72, "test": 40}
    assert Counter(label[split == "test"].tolist()) == {"sad": 30, "fear": 10}
    np.testing.assert_array_equal(split, make_split(label, np.arange(400)))


def test_a_source_keeps_its_own_held_out_part_without_twins(data):
    twins = concatenate([data, data.select(np.flatnonzero(data.split == "test"))])
    twins.split[len(data) :] = "train"
    split = assign_split(twins)
    assert Counter(split.split.tolist())["test"] == (data.split == "test").sum()
    assert not set(split.sha256[split.split == "test"].tolist()) & set(
        split.sha256[split.split != "test"].tolist()
    )


def test_too_few_faces_to_split_is_said():
    with pytest.raises(UserError, match="3 of fear"):
        make_split(np.array(["sad"] * 50 + ["fear"] * 3), np.arange(53))
    label = np.array(["sad", "fear", "happy", "neutral"])
    with pytest.raises(UserError, match="2 of fear, .*2 of sad; with 4 of each class there are enough"):
        make_split(label.repeat(4), np.arange(16) // 2)
    for enough, test in ((10, 0.1), (8, 0.1), (8, 0)):
        for group in (np.arange(4 * enough), np.arange(4 * enough) // 2):
            assert set(make_split(label.repeat(enough), group, test).tolist()) >= {"train", "val"}
    split = make_split(np.array(["happy", "neutral"]).repeat(5), np.arange(10))  # a person's ten pictures
    assert all(set(split[start : start + 5].tolist()) == {"train", "val", "test"} for start in (0, 5))


def test_weights_equal_classes_within_each_source():
    label = np.array(["sad"] * 30 + ["happy"] * 10 + ["sad"] * 5 + ["happy"] * 15)
    source = np.array(["a"] * 40 + ["b"] * 20)
    weight = class_source_weights(label, source)
    for name in "ab":
        sums = [weight[(source == name) & (label == emotion)].sum() for emotion in ("sad", "happy")]
        assert sums[0] == pytest.approx(sums[1])
    assert weight.mean() == pytest.approx(1)


def test_a_prefix_group_is_what_stands_before_the_number():
    assert [prefix_group(path) for path in ("Train/happy/ffhq_12.png", "image0000.jpg", "17.png")] == [
        "ffhq_",
        "image",
        "",
    ]


def test_balance_script(landmark_file, tmp_path):
    done = run("balance_dataset.py", "--data", landmark_file, "--per-class", 8, "--output", tmp_path / "set")
    assert done.returncode == 0, done.stderr
    assert "duplicates:" in done.stdout and "(0.25, as by chance, is good" in done.stdout
    assert "sources, by the prefix" in done.stdout
    table, data = np.loadtxt(tmp_path / "set.txt"), load_face_set(tmp_path / "set.faces")
    assert np.bincount(table[:, -1].astype(int)).tolist() == [8, 8, 8, 8] and len(data) == 32
    assert set(data.split.tolist()) == {"train", "val", "test"}
    first = (tmp_path / "set.txt").read_bytes()
    run("balance_dataset.py", "--data", landmark_file, "--per-class", 8, "--output", tmp_path / "set")
    assert (tmp_path / "set.txt").read_bytes() == first


def test_balance_drops_contradictions_and_warns_of_sources(landmark_file, tmp_path):
    data = load_face_set(landmark_file)
    contradiction = data.select(np.flatnonzero(data.label == "sad")[:3])
    contradiction.label[:] = "fear"
    path = np.array(
        [
            ("film_" if label in ("happy", "neutral") else "web") + f"{index}.png"
            for index, label in enumerate(data.label)
        ]
    )
    save_face_set(tmp_path / "in.faces", concatenate([replace(data, path=path), contradiction]))
    done = run("balance_dataset.py", "--data", tmp_path / "in.faces", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "6 pictures dropped because their copies carry different labels" in done.stdout
    assert "/film_*" in done.stdout and "labels can be told from the file name's prefix" in done.stdout


@pytest.mark.parametrize(
    "arguments, what",
    [
        (["--images", "nowhere"], "no folder"),
        (["--images", "."], "no pictures"),
        (["--images", "flat"], "none in a folder of a class"),
        (["--images", "faceless"], "holds no face"),
        (["--images", "flat", "--labels", "no.csv"], "no file"),
        (["--images", "faceless", "--output", "x.npz"], "ends in .faces"),
    ],
)
def test_extraction_mistakes_are_one_line(arguments, what, tmp_path):
    for place in ("work/flat", "work/faceless/sad"):
        (tmp_path / place).mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / place / "a.png"), cv2.resize(cv2.imread(str(DATA / "landscape.jpg")), (96, 96))
        )
    (tmp_path / "work/empty").mkdir()
    cwd = tmp_path / "work" if arguments[1] != "." else tmp_path / "work/empty"
    assert what in user_error(
        run("extract_landmarks.py", "--output", tmp_path / "x.faces", *arguments, cwd=cwd)
    )


def test_no_network_and_no_cache_is_one_line(tmp_path):
    done = run(
        "extract_landmarks.py",
        "--dataset",
        "affectnet",
        "--output",
        tmp_path / "x.faces",
        env={
            "KAGGLEHUB_CACHE": str(tmp_path),
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        },
    )
    assert "can't download mstjebashazida/affectnet" in user_error(done)


def test_a_cached_download_works_without_a_network(pictures, tmp_path):
    versions = tmp_path / "datasets" / "mstjebashazida" / "affectnet"
    (versions / "versions").mkdir(parents=True)
    shutil.copytree(pictures / "Test", versions / "versions" / "1" / "Test")
    (versions / "1.complete").touch()
    done = run(
        "extract_landmarks.py",
        "--dataset",
        "affectnet",
        "--output",
        tmp_path / "x.faces",
        env={
            "KAGGLEHUB_CACHE": str(tmp_path),
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        },
    )
    assert done.returncode == 0, done.stderr
    data = load_face_set(tmp_path / "x.faces")
    assert set(data.source.tolist()) == {"affectnet"} and set(data.split.tolist()) == {"test"}
