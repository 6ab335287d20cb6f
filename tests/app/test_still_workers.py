"""Several processes read a folder's pictures: the same rows in the same order, even if one of them dies."""

import contextlib
import csv
import os
import signal
from functools import partial
from pathlib import Path

import cv2
import pytest
from conftest import DATA, DEMO, frames_of, run

import main
from utils.app import still_workers
from utils.app.still_workers import read_pictures
from utils.config import MODELS, UserError
from utils.faces import pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty pictures under odd names, some of them none."""
    root = tmp_path_factory.mktemp("pictures")
    for number, frame in enumerate(frames_of(DEMO)[::30][:16]):
        (root / str(2020 + number % 2)).mkdir(exist_ok=True)
        cv2.imwrite(str(root / str(2020 + number % 2) / f"={number}.jpg"), frame)
    data = (root / "2020" / "=0.jpg").read_bytes()
    (root / os.fsdecode(b"\xff\xfe\r.jpg")).write_bytes(data)
    (root / "~a.jpg").write_bytes(data)
    (root / "._a.jpg").write_bytes(data)
    (root / "damaged.jpg").write_bytes(data[:2000])
    (root / "empty.png").touch()
    return root


def test_one_and_two_processes_write_the_same_files(folder, tmp_path):
    for jobs in (1, 2):
        drawn = folder / "drawn"  # inside of the source, from an earlier run: it is written, and not read
        drawn.mkdir()
        (drawn / "old.jpg").write_bytes((folder / "~a.jpg").read_bytes())
        options = ("--no-display", "--output", tmp_path / f"{jobs}.csv", "--save", drawn, "--jobs", jobs)
        done = run("main.py", "--source", folder, *options)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert "1 hidden" in done.stderr and "1 output of this program" in done.stderr
        assert "damaged.jpg: not a picture that can be read" in done.stderr
        drawn.rename(tmp_path / f"drawn{jobs}")
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    first, second = ([path for path in (tmp_path / f"drawn{jobs}").rglob("*.jpg")] for jobs in (1, 2))
    assert len(first) == len(second) == 19
    for path in first:
        other = tmp_path / "drawn2" / path.relative_to(tmp_path / "drawn1")
        assert path.read_bytes() == other.read_bytes()


@contextlib.contextmanager
def open_killer(*arguments):
    with still_workers._open_worker(*arguments) as work:  # the real one: nothing is patched in that process
        yield partial(kill_or_work, work)


def kill_or_work(work, file):
    if Path(file[0]).stem == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return work(file)


def test_a_picture_that_kills_its_process_costs_itself(folder, monkeypatch):
    paths = sorted(folder.rglob("=*.jpg"))[:6]
    files = [("deadly" if number == 2 else path.name, path) for number, path in enumerate(paths)]
    monkeypatch.setattr(still_workers, "_open_worker", open_killer)
    frames = list(read_pictures(files, str(MODELS), None, jobs=2, images=False))
    assert [frame.source for frame in frames] == [name for name, _ in files]
    assert [frame.problem for frame in frames if frame.problem] == ["deadly: the detector failed on it"]
    assert all(frame.readings for frame in frames if not frame.problem)


def test_a_picture_that_kills_its_process_alone_or_among_few_ends_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(still_workers, "_open_worker", open_killer)
    monkeypatch.setattr(pool, "CHANCES", 1)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("deadly.jpg", "z.jpg"):
        (pictures / name).symlink_to(DATA / "astronaut.jpg")

    def demo(source, output):
        options = ["--source", str(source), "--no-display", "--output", str(tmp_path / output)]
        main.main(main.build_parser().parse_args(options))

    demo(pictures, "few.csv")
    assert "deadly.jpg: the detector failed on it" in capsys.readouterr().err
    with open(tmp_path / "few.csv", newline="") as file:
        emotions = [row["emotion"] for row in csv.DictReader(file)]
    assert emotions == ["", "happy"]
    with pytest.raises(UserError, match="deadly.jpg: the detector failed on it; choose another"):
        demo(pictures / "deadly.jpg", "alone.csv")
