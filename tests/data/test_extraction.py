"""Extraction can be stopped at any moment and ends with the same file."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from conftest import ROOT, run

from utils.config import UserError
from utils.data import extraction
from utils.data.face_set import load_face_set
from utils.data.image_folder import find_labelled_images
from utils.faces import landmarker


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_and_ends_with_the_same_file(many_pictures, whole_file, tmp_path, stop):
    arguments = ["--images", many_pictures, "--jobs", 2]
    parts = tmp_path / "stopped.npz.parts"
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "scr" / "extract_landmarks.py",
            *map(str, arguments),
            "--output",
            tmp_path / "stopped.npz",
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(parts.glob("0*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, stop)
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0, "the run ended before it could be stopped"
    assert stop == signal.SIGKILL or "pictures are done; the same command goes on from there\nstopped" in said
    assert not (tmp_path / "stopped.npz").exists()
    done_before = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.npz")}
    assert done_before

    again = run("extract_landmarks.py", *arguments, "--output", tmp_path / "stopped.npz")
    assert again.returncode == 0, again.stderr
    assert "going on:" in again.stderr
    assert (tmp_path / "stopped.npz").read_bytes() == whole_file.read_bytes()
    assert not parts.exists()


def test_parts_of_changed_pictures_are_not_reused(pictures, tmp_path):
    parts = tmp_path / "a.npz.parts"
    parts.mkdir()
    (parts / "job.sha256").write_text("another job")
    (parts / "0000000.npz").write_bytes(b"of another job")
    done = run("extract_landmarks.py", "--images", pictures, "--output", tmp_path / "a.npz")
    assert done.returncode == 0, done.stderr
    assert "afresh" in done.stderr and len(load_face_set(tmp_path / "a.npz")) > 50


def test_a_missing_landmarker_file_is_fetched_and_checked(tmp_path):
    source = landmarker.LANDMARKER_FILE
    fetched = landmarker.ensure_landmarker_file(tmp_path / "x.task", url=source.as_uri())
    assert fetched.read_bytes() == source.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["x.task"]


def test_a_wrong_or_failed_download_leaves_nothing(tmp_path):
    (tmp_path / "other").write_bytes(b"not the model")
    with pytest.raises(UserError, match="not the expected file"):
        landmarker.ensure_landmarker_file(tmp_path / "x.task", url=(tmp_path / "other").as_uri())
    with pytest.raises(UserError, match="can't fetch"):
        landmarker.ensure_landmarker_file(tmp_path / "x.task", url=(tmp_path / "none").as_uri())
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_damaged_landmarker_file_is_named(tmp_path):
    (tmp_path / "x.task").write_bytes(b"half")
    with pytest.raises(UserError, match="x.task is damaged"):
        landmarker.ensure_landmarker_file(tmp_path / "x.task")


@contextlib.contextmanager
def open_killer():
    with extraction.open_extractor() as work:
        yield partial(kill_or_work, work)


def kill_or_work(work, path):
    with (path.parents[1] / "tried.txt").open("a") as file:
        file.write(path.name + "\n")
    if path.name == "deadly.png":
        os.kill(os.getpid(), signal.SIGKILL)
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
    parts = tmp_path / "parts"
    parts.mkdir()
    tried = []
    for _ in range(2):  # as if the first run had been stopped before its part was written
        data = extraction.extract(images, tmp_path / "faces", "faces", 2, parts)
        assert data.path.tolist() == ["sad/a.png", "sad/z.png"]
        assert data.missed_reason.tolist() == ["detector failed"]
        (parts / "0000000.npz").unlink()
        tried.append((tmp_path / "faces" / "tried.txt").read_text().split().count("deadly.png"))
    assert tried == [2, 2]
