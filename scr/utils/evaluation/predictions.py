"""Another program's answers to labelled pictures, from a table: CSV, or JSON lines as main.py writes them."""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from ..config import UserError, note, relative
from ..data.classes import class_name, list_names
from .answers import Pictures, Predictions, label_index
from .metrics import MISSED

PICTURE_COLUMNS = ("source", "path", "file", "filename", "image", "picture")
ANSWER_COLUMNS = ("emotion", "answer", "prediction", "predicted", "label")


def read_predictions(path: Path, pictures: Pictures) -> Predictions:
    """Return the answers to pictures that a table holds; a picture without a row or an answer is missed.

    A row has the picture's path, as much of it as tells it from the others, and the answer, in columns named
    as above; `confidence` is used if it is there. Of several faces on a picture the largest counts (`width`
    times `height`). What is answered beyond the classes asked about counts as wrong. Raises UserError if the
    table can't be read or fits none of the pictures.
    """
    rows = _read_rows(path)
    picture, answer = (_find_column(path, rows[0], names) for names in (PICTURE_COLUMNS, ANSWER_COLUMNS))
    of_picture, unknown = _largest_faces(path, rows, picture, pictures)
    if absent := len(pictures) - len(of_picture):
        note(f"{absent} of {len(pictures)} pictures have no row in {relative(path)}: counted as no face")
    if unknown:
        note(f"{unknown} rows of {relative(path)} are of other pictures: left out")
    said = [class_name(of_picture.get(number, {}).get(answer) or "") for number in range(len(pictures))]
    asked = sorted(set(pictures.label.tolist()))
    others = Counter(name for name in said if name and name not in asked)
    if others:
        counts = ", ".join(f"{count} {name}" for name, count in others.most_common())
        note(f"answers that no picture is labelled with count as wrong: {counts}")
    classes = (*asked, *sorted(others))
    confidence = [_number(of_picture.get(number, {}).get("confidence")) for number in range(len(pictures))]
    return Predictions(
        path.name,
        classes,
        label_index(pictures, classes),
        np.array([classes.index(name) if name else MISSED for name in said], np.int64),
        np.array(confidence),
        pictures.source,
        np.zeros(len(pictures)),
    )


def _read_rows(path: Path) -> list[dict]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            rows = list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"can't read {relative(path)}: {error}; it should be a .csv or .jsonl") from error
    if not rows or not isinstance(rows[0], dict):
        raise UserError(f"{relative(path)} has no rows; python scr/main.py --output writes such a table")
    return rows


def _find_column(path: Path, row: dict, names: tuple[str, ...]) -> str:
    found = {str(name).strip().lower(): name for name in row}
    if known := [found[name] for name in names if name in found]:
        return known[0]
    raise UserError(
        f"{relative(path)} has the columns {list_names(map(str, row))}, and none named {' or '.join(names)}"
    )


def _largest_faces(
    path: Path, rows: list[dict], column: str, pictures: Pictures
) -> tuple[dict[int, dict], int]:
    """Return for each picture, by number, the row of its largest face, and how many rows fit no picture."""
    places = defaultdict(list)
    parts = [PurePosixPath(name).parts for name in pictures.name.tolist()]
    for number, names in enumerate(parts):
        places[names[-1]].append(number)
    largest, unknown = {}, 0
    for row in rows:
        names = PurePosixPath(str(row[column]).replace("\\", "/")).parts or ("",)
        fits = [(_common_end(names, parts[number]), number) for number in places.get(names[-1], [])]
        best = [number for length, number in fits if length == max(fits)[0]]
        if len(best) > 1:
            either = " or ".join(pictures.name[best[:2]].tolist())
            raise UserError(
                f"{relative(path)}: {row[column]} may be {either}; write paths that tell them apart"
            )
        unknown += not best
        area = _number(row.get("width")) * _number(row.get("height"))
        if best and (best[0] not in largest or area > largest[best[0]][0]):
            largest[best[0]] = area, row
    if not largest:
        raise UserError(
            f"no row of {relative(path)} is of these pictures; it names {rows[0][column]}, they are such as "
            f"{pictures.name[0]}"
        )
    return {number: row for number, (_, row) in largest.items()}, unknown


def _common_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return how many names two paths have in common, counted from their ends."""
    count = 0
    for left, right in zip(reversed(one), reversed(other)):
        if left != right:
            break
        count += 1
    return count


def _number(value) -> float:
    """Return a table's field as a number, nan if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
