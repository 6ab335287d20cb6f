"""Extraction can be stopped at any moment and ends with the same set; it reads what is new or has changed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from conftest import DATA, ROOT, assert_same_sets, read_pictures, run

from utils.data import extraction
from utils.data.face_set import load_face_set
from utils.data.image_folder import find_labelled_images


@pytest.mark.parametrize(
    "stop, system",
    [
        ("killed", "windows"),
        pytest.param(
            "interrupted", "here", marks=pytest.mark.skipif(os.name == "nt", reason="needs signals")
        ),
    ],
    indirect=["system"],
)
def test_a_stopped_run_goes_on_and_ends_with_the_same_set(many_pictures, whole_file, tmp_path, stop, system):
    output = tmp_path / "stopped.faces"
    arguments = "--images", many_pictures, "--jobs", 1, "--output", output
    process = subprocess.Popen(
        [sys.executable, ROOT / "scr" / "extract_landmarks.py", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while read_pictures(output) < 20 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.5)  # a commit may be seen before it is complete
    if stop == "killed":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0, "the run ended before it could be stopped"
    assert stop == "killed" or "pictures are done; the same command goes on from there\nstopped" in said

    assert 0 < len(load_face_set(output)) < len(load_face_set(whole_file))
    again = run("extract_landmarks.py", *arguments)
    assert again.returncode == 0, again.stderr
    assert "going on:" in again.stderr
    assert_same_sets(output, whole_file)


def test_only_new_and_changed_pictures_are_read(pictures, tmp_path, monkeypatch):
    shutil.copytree(pictures / "Test", tmp_path / "photos")
    seen = []
    monkeypatch.setattr(
        extraction, "work_through", lambda opener, paths, jobs: work_here(opener, paths, seen)
    )

    def extract():
        seen.clear()
        images, _ = find_labelled_images(tmp_path / "photos")
        extraction.extract(images, tmp_path / "photos", "photos", tmp_path / "a.faces", 1)
        return load_face_set(tmp_path / "a.faces")

    first = extract()
    assert len(seen) == len(first) + len(first.missed)
    assert len(extract()) == len(first) and not seen

    happy = tmp_path / "photos" / "Happy"
    gone, changed, moved = sorted(happy.iterdir())[:3]
    gone.unlink()
    changed.write_bytes(sorted((pictures / "Train" / "Happy").iterdir())[0].read_bytes())
    moved.rename(tmp_path / "photos" / "Sad" / "moved.png")
    shutil.copy(DATA / "astronaut.jpg", happy)
    second = extract()
    assert {path.name for path in seen} == {changed.name, "moved.png", "astronaut.jpg"}
    assert f"Happy/{gone.name}" not in second.path and "Happy/astronaut.jpg" in second.path
    row = {path: number for number, path in enumerate(first.path.tolist())}
    for number, path in enumerate(second.path.tolist()):
        if path in row and path != f"Happy/{changed.name}":
            np.testing.assert_array_equal(second.landmarks[number], first.landmarks[row[path]])


def work_here(opener, paths, seen):
    with opener() as work:
        for path in paths:
            seen.append(path)
            yield work(path)


@contextlib.contextmanager
def open_killer():
    with extraction.open_extractor() as work:
        yield partial(kill_or_work, work)


def kill_or_work(work, path):
    with (path.parents[1] / "tried.txt").open("a") as file:
        file.write(path.name + "\n")
    if path.name == "deadly.png":
        os.kill(os.getpid(), 9)
    return work(path)


def test_a_picture_that_kills_its_worker_is_counted_and_left_alone_from_then_on(
    pictures, tmp_path, monkeypatch
):
    (tmp_path / "faces" / "sad").mkdir(parents=True)
    portrait = next(pictures.rglob("*.png")).read_bytes()
    for name in ("a", "deadly", "z"):
        (tmp_path / "faces" / "sad" / f"{name}.png").write_bytes(portrait)
    monkeypatch.setattr(extraction, "open_extractor", open_killer)
    images, _ = find_labelled_images(tmp_path / "faces")
    for _ in range(2):
        extraction.extract(images, tmp_path / "faces", "faces", tmp_path / "a.faces", 2)
        data = load_face_set(tmp_path / "a.faces")
        assert data.path.tolist() == ["sad/a.png", "sad/z.png"]
        assert data.missed.reason.tolist() == ["detector failed"]
        assert (tmp_path / "faces" / "tried.txt").read_text().split().count("deadly.png") == 1
