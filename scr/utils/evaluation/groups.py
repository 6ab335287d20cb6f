"""For whom a system reads faces well: its figures for the groups of pictures that a table names."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..config import UserError, note, relative
from ..data.classes import list_names
from ..folders import counting_key
from .metrics import compare_recalls, evaluate_predictions, mean_recall
from .predictions import Pictures, Predictions
from .tables import fitting_pictures, read_table

FEWEST = 10
"""Pictures of a class that count towards a group's balanced accuracy; of fewer, only the recall is told."""
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
    rows_names = (_known_name(row.get(first, ""), known) for row in rows)
    for row, numbers in zip(rows, fitting_pictures(rows_names, names)):
        has_row[numbers] = True
        for name, values in groups.items():
            values[numbers] = row.get(name, "").strip()
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


def group_figures(predictions: Predictions, groups: dict[str, np.ndarray]) -> dict[str, dict]:
    """Return for each column of groups (n,) the figures of its `values`, and the `gaps` between each two.

    A gap is the better group, the worse, by how much its balanced accuracy is lower, and the interval of
    that, on the classes of which both have `FEWEST` pictures. The intervals are so wide that all gaps of a
    column hold together with 95% (Bonferroni).
    """
    label, predicted, figures = predictions.label, predictions.predicted, {}
    for column, of_picture in groups.items():
        rows = {value: of_picture == value for value in sorted(set(of_picture) - {""}, key=counting_key)}
        values = {
            value: evaluate_predictions(label[chosen], predicted[chosen], predictions.classes)
            for value, chosen in rows.items()
        }
        if len(values) > 1:
            figures[column] = {"values": values, "gaps": list(_gaps(values))}
    return figures


def _gaps(figures: dict[str, dict]) -> Iterator[tuple[str, str, float, float, float]]:
    confidence = 1 - 0.05 / math.comb(len(figures), 2)
    for pair in itertools.combinations(figures, 2):
        hits, total = (np.array(counts) for counts in zip(*(_counts(figures[value]) for value in pair)))
        shared = (total >= FEWEST).all(axis=0)
        if shared.any():
            gap, low, high = compare_recalls(hits[:, shared], total[:, shared], confidence)
            yield (*pair, gap, low, high) if gap >= 0 else (*pair[::-1], -gap, -high, -low)


def _counts(row: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return how many predictions are right, and how many there are, by class."""
    matrix = np.array(row["confusion_matrix"])
    return matrix.diagonal(), matrix.sum(axis=1)


def describe_groups(figures: dict[str, dict], classes: Sequence[str]) -> str:
    """Return as text what `group_figures` found: each group's figures, and each column's largest sure gap."""
    lines = [f"groups, with 95% intervals; classes of {FEWEST} pictures or more count"]
    for column, of in figures.items():
        wide = max(map(len, of["values"]))
        lines.append(column)
        for value, row in of["values"].items():
            summary, recalls = _describe_group(row, classes)
            lines += [f"  {value:<{wide}}  {summary}", f"  {'':<{wide}}  recall: {recalls}"]
        lines.append(f"  {_describe_gap(of['gaps'])}")
    return "\n".join(lines)


def _describe_group(row: dict, classes: Sequence[str]) -> tuple[str, str]:
    hits, total = _counts(row)
    least = FEWEST if total.max() >= FEWEST else 1  # a group of few pictures of each class has a figure, too
    mean, low, high = mean_recall(hits[total >= least], total[total >= least])
    counts = dict(zip(classes, total.tolist()))
    few = [name for name, count in counts.items() if 0 < count < least]
    missed = f" ({row['missed']} without a face)" if row["missed"] else ""
    without = f" without {list_names(few)}" if few else ""
    recalls = [
        f"{name} {recall:.2f} ({lowest:.2f} to {highest:.2f}) of {counts[name]:,}"
        for name, (recall, lowest, highest) in row["recall"].items()
    ]
    balanced = f"balanced accuracy {mean:.3f} ({low:.3f} to {high:.3f}){without}"
    return f"pictures {total.sum():,}{missed}, {balanced}", ", ".join(recalls)


def _describe_gap(gaps: list[tuple]) -> str:
    if not gaps:
        return "nothing to compare"
    sure = [gap for gap in gaps if gap[3] > 0]
    better, worse, gap, low, high = max(sure or gaps, key=lambda one: one[2])
    found = "largest gap that the intervals support:" if sure else "no gap is supported; the largest is"
    return f"{found} {better} above {worse} by {gap:.3f} ({low:+.3f} to {high:+.3f})"
