"""Rows are always valid and can be read back, whatever a file is called."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from utils.app.pipeline import FaceResult
from utils.app.results.table import FaceTable, TableFormat
from utils.config import EMOTIONS, UserError

NAMES = {
    "=1+1.png": "./=1+1.png",
    "-2.png": "./-2.png",
    "@x.png": "./@x.png",
    'a, b\n"c".png': 'a, b\n"c".png',
    "carriage\rreturn.png": "carriage\\rreturn.png",
    "über 漢.png": "über 漢.png",
    os.fsdecode(b"\xff\xfe.png"): "\\xff\\xfe.png",
    "2023/1.png": "2023/1.png",
}


SURE = FaceResult(
    0, (1, 2, 3, 4), "happy", 0.75, dict(zip(EMOTIONS, (0.0, 0.75, 0.25, 0.0))), {}, np.zeros((478, 3))
)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_name_and_number_comes_back(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    with FaceTable(path, EMOTIONS) as writer:
        for name in NAMES:
            writer.write(name, 0, 0, [SURE])
    text = path.read_bytes().decode("utf-8")  # strict
    if suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["source"] for row in rows] == list(NAMES.values())
        assert {(row["x"], row["confidence"], row["sad"]) for row in rows} == {("1", "0.75000", "0.00000")}
    else:
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["source"].replace("\r", "\\r") for row in rows] == [
            name.removeprefix("./") for name in NAMES.values()
        ]
        assert {row["confidence"] for row in rows} == {0.75}


def test_a_table_for_excel(tmp_path):
    path = tmp_path / "rows.csv"
    with FaceTable(path, EMOTIONS, ["a.png"]) as table:
        table.write("a.png", 0, 0, [SURE])
    plain = path.read_bytes()
    assert plain.startswith(b"source,frame,timestamp_ms,face,x,y,width,height,emotion,confidence,fear,happy")
    with FaceTable(path, EMOTIONS, ["\u00fcber.png"]) as table:
        table.write("\u00fcber.png", 0, 0, [SURE])
    marked = path.read_bytes()
    assert marked.startswith(b"\xef\xbb\xbfsource,") and marked.count(b"\xef\xbb\xbf") == 1
    with FaceTable(path, EMOTIONS, ["a.png"], TableFormat(";", ",")) as table:
        table.write("a;b.png", 0, 0, [SURE])
    rows = list(csv.reader(path.read_text().splitlines(), delimiter=";"))
    assert rows[1][0] == "a;b.png" and rows[1][8:11] == ["happy", "0,75000", "0,00000"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_are_added_to_those_of_before_if_wanted(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    for number in range(3):
        with FaceTable(path, EMOTIONS, ["\u00fc.png"], TableFormat(append=True)) as table:
            table.write(f"{number}.png", 0, 0, [SURE])
    text = path.read_text(encoding="utf-8-sig")
    assert [text.count(f"{number}.png") for number in range(3)] == [1, 1, 1]
    assert text.count("timestamp_ms") == (1 if suffix == ".csv" else 3) and "\ufeff" not in text


def test_rows_of_another_model_are_not_added(tmp_path):
    path = tmp_path / "rows.csv"
    FaceTable(path, EMOTIONS).__exit__()
    with pytest.raises(UserError, match="other columns"):
        FaceTable(path, ("wink", "kiss"), style=TableFormat(append=True))
    with pytest.raises(UserError, match="other columns"):
        FaceTable(path, EMOTIONS, style=TableFormat(";", append=True))


def test_rows_on_standard_output(capsys):
    with FaceTable(Path("-"), EMOTIONS, ["\u00fc"]) as table:
        table.write("\u00fc", 0, 0, [SURE])
    print("still open")
    header, row, end = capsys.readouterr().out.splitlines()
    assert header.startswith("source,") and row.startswith("\u00fc,0,0,0,1,2,3,4,happy,0.75000") and end
