"""`read_faces`, three lines from Python: the same answers as main.py's rows."""

import csv

import cv2
import numpy as np
import pytest
from conftest import DATA, run

from utils.app.api import read_faces
from utils.config import UserError


def test_it_answers_as_main_does(tmp_path):
    table = tmp_path / "o.csv"
    done = run("main.py", "--source", DATA / "group.jpg", "--no-display", "--output", table)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(table.open()))
    faces = read_faces(DATA / "group.jpg")
    assert len(faces) == len(rows) == 5
    for face, row in zip(faces, rows):
        assert face.emotion == row["emotion"] == max(face.probabilities, key=face.probabilities.get)
        assert face.box == tuple(int(row[name]) for name in ("x", "y", "width", "height"))
        assert face.confidence == pytest.approx(float(row["confidence"]), abs=2e-5)
    pixels = read_faces(cv2.imread(str(DATA / "group.jpg")))
    assert [face.probabilities for face in pixels] == [face.probabilities for face in faces]
    assert read_faces(DATA / "landscape.jpg") == []


def test_it_says_what_can_not_be_read(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="broken.jpg"):
        read_faces(tmp_path / "broken.jpg")
    with pytest.raises(UserError, match="no model named nobody"):
        read_faces(DATA / "astronaut.jpg", "nobody")
    with pytest.raises(ValueError, match="expected a"):
        read_faces(np.zeros((10, 10), np.uint8))
