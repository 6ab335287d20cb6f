"""Several processes read a folder's pictures: the same rows in the same order, even if one of them dies."""

import csv
import os
from pathlib import Path

import cv2
import pytest
from conftest import DATA, DEMO, frames_of, run

from utils.app import command, pipeline
from utils.faces.pool import Lost


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


def test_a_picture_that_kills_its_process_costs_itself(folder, monkeypatch, tmp_path, capsys):
    def work_through(open_worker, files, jobs, ahead):
        with open_worker() as work:
            yield from (Lost("worker died") if "=4" in file.name else work(file) for file in files)

    monkeypatch.setattr(pipeline, "work_through", work_through)
    table = tmp_path / "rows.csv"
    options = ["--source", str(folder), "--no-display", "--output", str(table)]
    command.main(command.build_parser().parse_args(options))
    assert "=4.jpg: the detector failed on it" in capsys.readouterr().err
    with table.open(newline="", encoding="utf-8-sig") as file:  # one name is no text
        faces = {Path(row["source"]).stem: row["face"] for row in csv.DictReader(file)}
    assert faces["=4"] == "" and faces["=5"] == "0" and len(faces) == 20


def test_few_pictures_are_read_in_this_process(monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "work_through", None)
    table = tmp_path / "rows.csv"
    options = ["--source", str(DATA / "astronaut.jpg"), "--no-display", "--output", str(table)]
    command.main(command.build_parser().parse_args(options))
    with table.open(newline="") as file:
        assert [row["emotion"] for row in csv.DictReader(file)] == ["happy"]
