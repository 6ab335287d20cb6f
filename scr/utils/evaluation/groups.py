"""For whom a system reads faces well: its figures for the groups of pictures that a table names."""

import itertools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..config import UserError, note, relative
from ..data.classes import list_names
from ..folders import counting_key
from .metrics import compare_recalls, evaluate_predictions, mean_recall
from .predictions import Pictures, Predictions
from .tables import fitting_pictures, read_table

FEWEST = 10
"""Pictures of a class that count towards a group's balanced accuracy; of fewer, the recall alone is told."""
MOST_VALUES = 20
"""Values of a column that tells groups; one with more tells names or numbers."""


def read_groups(path: Path, columns: list[str], pictures: Pictures) -> dict[str, np.ndarray]:
    """Return for each column of a table what it says of each picture (n,), "" where it says nothing.

    The table is as `read_table` takes it. Its first column is the picture's name, with or without folders and
    suffix; where no picture has that name, what follows its last `_` is left out: `test_0001_aligned.jpg` is
    `test_0001.jpg`. columns: those wanted, or none for all. Those without 2 to `MOST_VALUES` values are left
    out, with a note. Raises UserError if one is not there, or no row is of these pictures.
    """
    rows = read_table(path)
    first, *others = rows[0]
    if absent := [name for name in columns if name not in others]:
        there = list_names(others)
        raise UserError(f"{relative(path)} has no column {list_names(absent)}; beside {first} it has {there}")
    names = [str(PurePosixPath(name).with_suffix("")) for name in pictures.name.tolist()]
    known = {PurePosixPath(name).name for name in names}
    groups = {name: np.full(len(pictures), "", object) for name in columns or others}
    has_row = np.zeros(len(pictures), bool)
    for row, numbers in zip(rows, fitting_pictures((_known_name(row[first], known) for row in rows), names)):
        has_row[numbers] = True
        for name, values in groups.items():
            values[numbers] = row[name].strip()
    if not has_row.any():
        raise UserError(
            f"no row of {relative(path)} is of these pictures; its first column names {rows[0][first]}, they "
            f"are such as {pictures.name[0]}"
        )
    if not has_row.all():
        note(f"{(~has_row).sum()} of {len(pictures)} pictures have no row in {relative(path)}: in no group")
    counts = {name: len(set(values) - {""}) for name, values in groups.items()}
    if idle := [f"{name} ({count})" for name, count in counts.items() if not 2 <= count <= MOST_VALUES]:
        note(f"no groups, since they have not 2 to {MOST_VALUES} values: {list_names(idle)}")
    return {name: values for name, values in groups.items() if 2 <= counts[name] <= MOST_VALUES}


def _known_name(name: str, known: set[str]) -> str:
    """Return a path in a table without its suffix, its name cut at a `_` until it is known."""
    path = PurePosixPath(name.replace("\\", "/"))
    stem = path.stem
    while stem not in known and "_" in stem:
        stem = stem.rpartition("_")[0]
    return str(path.parent / stem)


def group_figures(predictions: Predictions, groups: dict[str, np.ndarray]) -> dict:
    """Return for each column the figures of its `values`, and the `gaps` between each two of them.

    A gap is the better group, the worse, by how much its balanced accuracy is lower, and the interval of
    that, all on the `classes` of which both have `FEWEST` pictures. `pairs` is the number of all pairs: the
    intervals are so wide that all of them hold together with 95% (Bonferroni).
    """
    columns = {
        column: {value: _figures(predictions, values == value) for value in _in_order(values)}
        for column, values in groups.items()
    }
    pairs = [
        (column, *pair)
        for column, of in columns.items()
        for pair in itertools.combinations(of, 2)
        if (_enough(of[pair[0]]) & _enough(of[pair[1]])).any()
    ]
    gaps = {column: [] for column in columns}
    for column, one, other in pairs:
        rows = columns[column][one], columns[column][other]
        shared = _enough(rows[0]) & _enough(rows[1])
        hits, total = (np.array(counts)[:, shared] for counts in zip(*map(_counts, rows)))
        gap, low, high = compare_recalls(hits, total, 1 - 0.05 / len(pairs))
        better = (one, other, gap, low, high) if gap >= 0 else (other, one, -gap, -high, -low)
        names = ("better", "worse", "gap", "low", "high")
        classes = [name for name, is_in in zip(predictions.classes, shared) if is_in]
        gaps[column].append(dict(zip(names, better)) | {"classes": classes})
    found = {column: {"values": of, "gaps": gaps[column]} for column, of in columns.items()}
    return {"pairs": len(pairs), "columns": found}


def _figures(predictions: Predictions, chosen: np.ndarray) -> dict:
    return evaluate_predictions(predictions.label[chosen], predictions.predicted[chosen], predictions.classes)


def _in_order(values: np.ndarray) -> list[str]:
    return sorted(set(values) - {""}, key=counting_key)


def _counts(row: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return how many predictions are right, and how many there are, by class."""
    matrix = np.array(row["confusion_matrix"])
    return matrix.diagonal(), matrix.sum(axis=1)


def _enough(row: dict) -> np.ndarray:
    return _counts(row)[1] >= FEWEST


def describe_groups(figures: dict, classes: Sequence[str]) -> str:
    """Return as text what `group_figures` found: each group's figures, and each column's largest sure gap."""
    lines = [
        f"by group, with 95% intervals; classes of {FEWEST} pictures or more count. The intervals of "
        f"differences hold for all {figures['pairs']} pairs together"
    ]
    for column, of in figures["columns"].items():
        wide = max(map(len, of["values"]))
        lines.append(column)
        for value, row in of["values"].items():
            balanced, recalls = _describe_group(row, classes)
            lines += [f"  {value:<{wide}}  {balanced}", f"  {'':<{wide}}  {recalls}"]
        lines.append(f"  {_describe_gap(of['gaps'], classes)}")
    return "\n".join(lines)


def _describe_group(row: dict, classes: Sequence[str]) -> tuple[str, str]:
    """Return a group's balanced accuracy, and its recalls, as text."""
    (hits, total), enough = _counts(row), _enough(row)
    balanced = f"{total.sum():,} pictures"
    if row["missed"]:
        balanced += f" ({row['missed']} without a face)"
    if enough.any():
        mean, low, high = mean_recall(hits[enough], total[enough])
        balanced += f", balanced accuracy {mean:.3f} ({low:.3f} to {high:.3f})"
        balanced += _of_which([name for name, is_in in zip(classes, enough) if is_in], classes)
    recalls = [
        f"{name} {recall:.2f} ({low:.2f} to {high:.2f}) of {total[list(classes).index(name)]:,}"
        for name, (recall, low, high) in row["recall"].items()
    ]
    return balanced, f"recall: {', '.join(recalls)}"


def _of_which(counted: Sequence[str], classes: Sequence[str]) -> str:
    return "" if len(counted) == len(classes) else f" of {list_names(counted)}"


def _describe_gap(gaps: list[dict], classes: Sequence[str]) -> str:
    if not gaps:
        return f"nothing to compare: no two groups have {FEWEST} pictures of a class"
    sure = [gap for gap in gaps if gap["low"] > 0]
    one = max(sure or gaps, key=lambda gap: gap["gap"])
    figures = (
        f"{one['better']} above {one['worse']} by {one['gap']:.3f} ({one['low']:+.3f} to {one['high']:+.3f})"
    )
    found = (
        "largest gap that the intervals support:"
        if sure
        else "no gap is supported; the largest difference is"
    )
    return f"{found} {figures}{_of_which(one['classes'], classes)}"
