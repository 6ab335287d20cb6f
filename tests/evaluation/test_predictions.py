"""Another program's table scored by the same figures, and two systems compared."""

import numpy as np
import pytest

from utils.config import UserError
from utils.evaluation.metrics import MISSED, compare_hits
from utils.evaluation.predictions import Pictures, read_predictions, side_by_side, verdict

PICTURES = Pictures(
    np.array(["set/happy/001.jpg", "set/sad/001.jpg", "set/sad/002.jpg", "set/sad/003.jpg"]),
    np.array(["happy", "sad", "sad", "sad"]),
    np.full(4, "set"),
)


def write(path, text):
    path.write_text(text)
    return path


def test_rows_are_found_by_the_end_of_their_path_and_the_largest_face_counts(tmp_path, capsys):
    table = write(
        tmp_path / "theirs.csv",
        "source,width,height,emotion,confidence\n"
        "C:\\data\\happy\\001.jpg,10,10,sadness,.9\n"
        "C:\\data\\happy\\001.jpg,20,20,Happiness,.8\n"
        "./sad/001.jpg,10,10,sad,.7\n"
        "elsewhere/009.jpg,10,10,sad,.7\n"
        "002.jpg,10,10,surprise,.5\n",
    )
    found = read_predictions(table, PICTURES)
    assert found.classes == ("happy", "sad", "surprise")
    assert found.predicted.tolist() == [0, 1, 2, MISSED], "the last has no row"
    assert found.confidence[:3].tolist() == [0.8, 0.7, 0.5]
    figures = found.figures()
    assert figures["all"]["balanced_accuracy"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures["all"]["precision"]["sad"] == 1 and figures["all"]["f1"]["sad"] == pytest.approx(2 / 4)
    told = capsys.readouterr().err
    assert "1 of 4 pictures have no row" in told and "1 rows" in told and "1 surprise" in told


def test_json_lines_are_read_as_main_writes_them(tmp_path):
    rows = '{"source": "sad/002.jpg", "width": null, "height": null, "emotion": null, "confidence": null}\n'
    found = read_predictions(write(tmp_path / "o.jsonl", rows), PICTURES)
    assert found.predicted.tolist() == [MISSED] * 4 and found.figures()["ece"] is None


@pytest.mark.parametrize(
    "text, problem",
    [
        ("source,emotion\n001.jpg,sad\n", "tell them apart"),
        ("source,emotion\nother.jpg,sad\n", "no row"),
        ("source,mood\n001.jpg,sad\n", "it needs source .the picture. and emotion"),
        ("source,emotion\n", "no rows"),
    ],
)
def test_a_table_that_does_not_fit_says_why(tmp_path, text, problem):
    with pytest.raises(UserError, match=problem):
        read_predictions(write(tmp_path / "t.csv", text), PICTURES)


def test_the_difference_of_two_systems_has_an_interval(tmp_path):
    label = np.repeat([0, 1], 100)
    before, after = np.ones(200, bool), np.ones(200, bool)
    before[:30] = False  # of the first class, 30 more are right
    gain, low, high = compare_hits(label, before, after)
    assert gain == pytest.approx(0.15) and 0.08 < low < gain < high < 0.21
    assert compare_hits(label, after, before)[2] < 0
    gain, low, high = compare_hits(label[:4], after[:4], after[:4])
    assert gain == 0 and low < -0.2 and high > 0.2, "four pictures show nothing"


def test_the_verdict_is_plain(tmp_path):
    names = [f"{number}.jpg" for number in range(20)]
    label = ["happy", "sad"] * 10
    pictures = Pictures(np.array(names), np.array(label), np.full(20, "set"))
    tables = {
        "right.csv": "".join(f"{name},{one}\n" for name, one in zip(names, label)),
        "wrong.csv": "".join(f"{name},fear\n" for name in names),
    }
    right, wrong = (
        read_predictions(write(tmp_path / name, "source,emotion\n" + rows), pictures)
        for name, rows in tables.items()
    )
    assert verdict(wrong, right).startswith("right.csv reads these pictures better than wrong.csv")
    assert verdict(right, wrong).startswith("wrong.csv reads these pictures worse than right.csv")
    assert "do not show which is better" in verdict(right, right)
    assert "0.000 (" in side_by_side([right, wrong]).splitlines()[2]


@pytest.mark.parametrize(
    "text",
    [
        "source;width;height;emotion;confidence\nsad/002.jpg;10;10;sad;0,75\n",
        "\ufeffsource,emotion,confidence\nsad/002.jpg,sad,.75\n",
        'source\temotion\tconfidence\nsad/002.jpg\tsad\t"0,75"\n',
    ],
)
def test_tables_of_spreadsheets_are_read(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = read_predictions(tmp_path / "t.csv", PICTURES)
    assert found.confidence[2] == 0.75 and found.predicted.tolist() == [MISSED, MISSED, 1, MISSED]


@pytest.mark.parametrize("more, values", [("", ""), (",yaw,pitch,roll,jawOpen", ",-12.5,3,0,.9")])
def test_an_uncertain_face_counts_as_its_likeliest_class(tmp_path, more, values):
    columns = f"source,emotion,confidence,happy,sad{more}\n"
    table = write(tmp_path / "main.csv", columns + f"sad/002.jpg,uncertain,.45,.45,.4{values}\n")
    found = read_predictions(table, PICTURES)
    assert found.classes == ("happy", "sad") and found.predicted[2] == 0 and found.confidence[2] == 0.45


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "3",
        '"a"',
        "{",
        '{"emotion": "sad"}',
        "[" * 5000,
        '{"source": "sad/002.jpg", "emotion": 4, "width": 5, "height": 5, "confidence": 7}',
    ],
)
def test_json_lines_that_are_no_rows_are_refused(tmp_path, line):
    good = '{"source": "sad/002.jpg", "emotion": "sad"}\n'
    with pytest.raises(UserError, match="t.jsonl"):
        read_predictions(write(tmp_path / "t.jsonl", good + line + "\n"), PICTURES)
