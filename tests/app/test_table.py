"""Rows are always valid and can be read back, whatever a file is called and a network says."""

import csv
import json
import os

import numpy as np
import pytest

from utils.app.smoothing import FaceResult
from utils.app.table import ResultWriter
from utils.config import EMOTIONS

NAMES = {
    "=1+1.png": "./=1+1.png",
    "-2.png": "./-2.png",
    "@x.png": "./@x.png",
    'a, b\n"c".png': 'a, b\n"c".png',
    "carriage\rreturn.png": "carriage\rreturn.png",
    "über 漢.png": "über 漢.png",
    os.fsdecode(b"\xff\xfe.png"): "\\xff\\xfe.png",
    "2023/1.png": "2023/1.png",
}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_name_and_number_comes_back(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    odd = FaceResult(0, np.zeros((478, 3)), (1, 2, 3, 4), "sad", float("nan"), np.full(4, np.nan, np.float32))
    with ResultWriter(path, EMOTIONS) as writer:
        for name in NAMES:
            writer.write(name, 0, 0, [odd])
    text = path.read_bytes().decode("utf-8")  # strict
    assert "nan" not in text.lower()
    if suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["source"] for row in rows] == list(NAMES.values())
        assert {(row["x"], row["confidence"], row["sad"]) for row in rows} == {("1", "", "")}
    else:
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["source"] for row in rows] == [name.removeprefix("./") for name in NAMES.values()]
        assert {row["confidence"] for row in rows} == {None}
