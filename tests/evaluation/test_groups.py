"""evaluate.py --groups: a table's names are found, groups get their figures, and only sure gaps are told."""

import gzip
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import DATA, run_here, user_error

from utils.config import UserError
from utils.evaluation.groups import describe_groups, group_figures, read_groups
from utils.evaluation.metrics import compare_recalls
from utils.evaluation.predictions import Pictures, Predictions

CLASSES = ("happy", "sad")


def pictures_named(*names) -> Pictures:
    return Pictures(np.array(names), np.array(["happy"] * len(names)), np.full(len(names), "set"))


def read(tmp_path, text: str, *names, columns=()) -> dict[str, list[str]]:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    groups = read_groups(tmp_path / "t.csv", list(columns), pictures_named(*names))
    return {column: values.tolist() for column, values in groups.items()}


def test_names_match_with_and_without_folder_suffix_and_more(tmp_path, capsys):
    table = "file,sex\ntest_0001_aligned.jpg,f\ntest_0001,f\nC:\\x\\happy\\b.png,m\nsad/b.png,f\n009.jpg,m\n"
    names = "set/happy/test_0001.jpg", "set/happy/b.jpg", "set/sad/b.jpg", "set/sad/c_1.jpg"
    assert read(tmp_path, table, *names) == {"sex": ["f", "m", "f", ""]}
    assert "1 of 4 pictures have no row" in capsys.readouterr().err
    assert read(tmp_path, "file,sex\nb,f\nc_1,m\n", *names[1:])["sex"] == ["f", "f", "m"], "all of the name"


def test_columns_are_chosen_and_those_without_groups_left_out(tmp_path, capsys):
    table = "file;sex;age;site\n1.jpg;f;20;x\n2.jpg;m;;x\n3.jpg; m ;30;x\n"
    names = "a/1.jpg", "a/2.jpg", "a/3.jpg"
    assert read(tmp_path, table, *names) == {"sex": ["f", "m", "m"], "age": ["20", "", "30"]}
    assert "site (1)" in capsys.readouterr().err
    assert list(read(tmp_path, table, *names, columns=["age"])) == ["age"]


@pytest.mark.parametrize(
    "text, columns, told",
    [
        ("file,sex\nother.jpg,f\n", [], "no row of .*t.csv is of these pictures; .* names other.jpg"),
        ("file,sex\n1.jpg,f\n", ["race"], "has no column race; beside file it has sex"),
        ("", [], "has no rows"),
    ],
)
def test_a_table_that_does_not_fit_says_why(tmp_path, text, columns, told):
    with pytest.raises(UserError, match=told):
        read(tmp_path, text, "a/1.jpg", columns=columns)


def predicted(groups: dict[str, tuple[int, int, int]]) -> tuple[Predictions, dict[str, np.ndarray]]:
    """Return predictions for groups of so many pictures of each class, so many of happy and of sad right."""
    label, answer, group = [], [], []
    for name, (count, happy, sad) in groups.items():
        label += [0] * count + [1] * count
        answer += [0] * happy + [1] * (count - happy) + [1] * sad + [0] * (count - sad)
        group += [name] * 2 * count
    source = np.full(len(label), "set")
    one = Predictions("x", CLASSES, np.array(label), np.array(answer), np.ones(len(label)), source, source)
    return one, {"age": np.array(group, object)}


def test_a_gap_is_told_only_where_the_intervals_support_it():
    groups = {"9-19": (200, 190, 180), "0-8": (200, 150, 140), "20+": (200, 185, 178), "": (9, 0, 0)}
    one, groups = predicted(groups)
    figures = group_figures(one, groups)
    text = describe_groups(figures, CLASSES)
    assert list(figures["age"]["values"]) == ["0-8", "9-19", "20+"] and len(figures["age"]["gaps"]) == 3
    assert "largest gap that the intervals support: 9-19 above 0-8 by 0.200 (+0.1" in text
    assert "pictures 400, balanced accuracy 0.725 (0.6" in text and "happy 0.75 (0.69 to 0.80) of 200" in text
    few, groups = predicted({"a": (20, 19, 18), "b": (20, 17, 16), "c": (9, 0, 0)})
    figures = group_figures(few, groups)
    text = describe_groups(figures, CLASSES)
    assert len(figures["age"]["gaps"]) == 1 and "c  pictures 18, balanced accuracy 0.000" in text
    assert "no gap is supported; the largest is a above b by 0.100 (-0.0" in text
    json.dumps(figures)


def test_a_class_of_few_pictures_does_not_make_half_of_a_figure():
    both, groups = predicted({"a": (20, 18, 18), "b": (20, 18, 18)})
    chosen = np.r_[0:40, 40:60, 60:63]  # of b three sad ones
    one = replace(both, **{name: getattr(both, name)[chosen] for name in ("label", "predicted")})
    one.predicted[-3:] = 0
    figures = group_figures(one, {"age": groups["age"][chosen]})
    (line,) = [one for one in describe_groups(figures, CLASSES).splitlines() if "  b  pictures 23" in one]
    assert "balanced accuracy 0.900 (0.699 to 0.972) without sad" in line
    assert figures["age"]["gaps"][0][2] == 0


def test_groups_without_a_common_class_are_not_compared():
    label = np.repeat([0, 1], 30)
    one = Predictions("x", CLASSES, label, label, np.ones(60), label.astype(str), label)
    figures = group_figures(one, {"shown": np.repeat(["joy", "grief"], 30).astype(object)})
    assert "nothing to compare" in describe_groups(figures, CLASSES)


def test_the_interval_of_a_difference_holds():
    """Of two groups that are read equally well, 95 of 100 draws have 0 inside."""
    generator, inside = np.random.default_rng(0), 0
    for _ in range(200):
        hits = generator.binomial([15, 60], 0.8, (2, 2))
        _, low, high = compare_recalls(hits, np.array([[15, 60]] * 2))
        inside += low <= 0 <= high
    assert 0.91 < inside / 200 < 0.99


def test_the_script_prints_and_keeps_groups(tmp_path, portrait):
    for emotion, picture in (("happy", portrait), ("neutral", cv2.imread(str(DATA / "landscape.jpg")))):
        (tmp_path / "in" / emotion).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(str(tmp_path / "in" / emotion / f"test_{number}.png"), picture)
    rows = "name,sex\ntest_0_aligned.jpg,female\ntest_1_aligned.jpg,male\n"
    (tmp_path / "people.csv.gz").write_bytes(gzip.compress(rows.encode()))
    options = ["--images", tmp_path / "in", "--output", tmp_path / "out"]
    done = run_here("evaluate.py", *options, "--groups", tmp_path / "people.csv.gz")
    assert done.returncode == 0, done.stderr
    assert "  female  pictures 2 (1 without a face), balanced accuracy 0.500" in done.stdout
    assert "recall: happy 1.00 (0.21 to 1.00) of 1, neutral 0.00" in done.stdout
    assert "nothing to compare" in done.stdout
    (report,) = (tmp_path / "out").rglob("report.json")
    assert list(json.loads(report.read_text())["groups"]["sex"]["values"]) == ["female", "male"]
    wrong = run_here("evaluate.py", *options, "--groups", tmp_path / "people.csv.gz", "race")
    assert "has no column race" in user_error(wrong)
