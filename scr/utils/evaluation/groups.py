"""For whom a system reads faces well: its figures for the groups of pictures that a table names."""

import itertools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..config import UserError, note, relative
from ..data.classes import list_names
from ..folders import counting_key
from .metrics import compare_reports, evaluate_predictions
from .predictions import Pictures, Predictions
from .tables import fitting_pictures, read_table

FEWEST = 20
"""Pictures of a group that is compared with others."""
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
    """Return for each column the figures of its `values`, and the `gaps` between those of `FEWEST` pictures.

    A gap is the better group, the worse, by how much its balanced accuracy is lower, on the classes that both
    have, and the interval of that. `pairs` is the number of pairs: the intervals are so wide that all
    of them hold together with 95% (Bonferroni).
    """
    figures = {
        column: {value: _figures(predictions, values == value) for value in _in_order(values)}
        for column, values in groups.items()
    }
    pairs = {
        column: list(itertools.combinations([value for value in of if _count(of[value]) >= FEWEST], 2))
        for column, of in figures.items()
    }
    count = sum(map(len, pairs.values()))
    return {
        "pairs": count,
        "columns": {
            column: {
                "values": of,
                "gaps": [gap for pair in pairs[column] if (gap := _gap(of, *pair, 1 - 0.05 / count))],
            }
            for column, of in figures.items()
        },
    }


def _figures(predictions: Predictions, chosen: np.ndarray) -> dict:
    return evaluate_predictions(predictions.label[chosen], predictions.predicted[chosen], predictions.classes)


def _in_order(values: np.ndarray) -> list[str]:
    return sorted(set(values) - {""}, key=counting_key)


def _count(row: dict) -> int:
    return row["faces"] + row["missed"]


def _gap(figures: dict, one: str, other: str, confidence: float) -> tuple | None:
    if (found := compare_reports(figures[one], figures[other], confidence)) is None:
        return None
    gap, low, high = found
    return (one, other, gap, low, high) if gap >= 0 else (other, one, -gap, -high, -low)


def describe_groups(figures: dict, classes: Sequence[str]) -> str:
    """Return as text what `group_figures` found: each group's figures, and each column's largest sure gap."""
    lines = [
        f"by group, with 95% intervals; differences are of groups of {FEWEST} pictures or more, and their "
        f"intervals hold for all {figures['pairs']} pairs together"
    ]
    for column, of in figures["columns"].items():
        lines.append(column)
        wide = max(map(len, of["values"]))
        for value, row in of["values"].items():
            low, high = row["balanced_accuracy_interval"]
            balanced = f"{row['balanced_accuracy']:.3f} ({low:.3f} to {high:.3f})"
            missed = f" ({row['missed']} without a face)" if row["missed"] else ""
            lines.append(f"  {value:<{wide}}  balanced accuracy {balanced}, {_count(row):,} pictures{missed}")
            counts = dict(zip(classes, map(sum, row["confusion_matrix"])))
            recalls = [
                f"{name} {recall:.2f} ({low:.2f} to {high:.2f}) of {counts[name]:,}"
                for name, (recall, low, high) in row["recall"].items()
            ]
            lines.append(f"  {'':<{wide}}  recall: {', '.join(recalls)}")
        lines.append(f"  {_describe_gap(of['gaps'])}")
    return "\n".join(lines)


def _describe_gap(gaps: list[tuple]) -> str:
    if not gaps:
        return f"nothing to compare: fewer than two groups of {FEWEST} pictures"
    sure = [gap for gap in gaps if gap[3] > 0]
    better, worse, gap, low, high = max(sure or gaps, key=lambda one: one[2])
    figures = f"{better} above {worse} by {gap:.3f} ({low:+.3f} to {high:+.3f})"
    if sure:
        return f"largest gap that the intervals support: {figures}"
    return f"no gap is supported; the largest difference is {figures}"
