"""Tables of others that say something of pictures: what they predict, or what they are."""

import csv
import gzip
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..config import UserError, relative
from ..data.classes import list_names
from ..faces.features import BLENDSHAPE_NAMES
from ..faces.pose import POSE

UNCERTAIN = "uncertain"
"""What main.py writes where no class is likely enough."""
NO_CLASSES = {*POSE, *BLENDSHAPE_NAMES}
"""Columns that main.py may add after the probabilities of the classes."""


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table by column; empty fields are "".

    It is CSV (comma, semicolon or tab), perhaps packed (`.csv.gz`), or JSON lines. Raises UserError if it
    can't be read or has no rows.
    """
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        lines = content.decode("utf-8-sig").splitlines()
        if path.suffix.lower() == ".jsonl":
            rows = [dict(json.loads(line)) for line in lines if line.strip()]
        else:
            delimiter = max(",;\t", key=lines[0].count) if lines else ","
            rows = list(csv.DictReader(lines, delimiter=delimiter))
    except (OSError, EOFError, zlib.error, TypeError, ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"can't read {relative(path)}: {error}; it should be a .csv or .jsonl") from error
    if not rows:
        raise UserError(f"{relative(path)} has no rows; it should have one for each picture")
    return [{str(name): "" if value is None else str(value) for name, value in row.items()} for row in rows]


def read_emotions(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, by column; each has a source and an emotion, which may be empty."""
    rows = read_table(path)
    for number, row in enumerate(rows, 1):
        if not {"source", "emotion"} <= set(row):
            raise UserError(
                f"row {number} of {relative(path)} has {list_names(row) or 'no names'} for columns; it needs "
                "source (the picture) and emotion, and may have confidence, width and height"
            )
    return rows


def fitting_pictures(names: Iterable[str], pictures: Sequence[str]) -> Iterator[list[int]]:
    """Yield for each path the pictures, by number, whose paths end most like it: if any, with its name."""
    places = defaultdict(list)
    parts = [PurePosixPath(name).parts for name in pictures]
    for number, own in enumerate(parts):
        places[own[-1]].append(number)
    for name in names:
        own = PurePosixPath(name.replace("\\", "/")).parts or ("",)
        fits = [
            (len(os.path.commonprefix([own[::-1], parts[number][::-1]])), number)
            for number in places.get(own[-1], [])
        ]
        longest, _ = max(fits, default=(0, 0))
        yield [number for length, number in fits if length == longest]


def largest_faces(path: Path, rows: list[dict], pictures: Sequence[str]) -> tuple[dict[int, dict], int]:
    """Return for each picture, by number, the row of its largest face, and how many rows fit no picture."""
    largest, unknown = {}, 0
    fitting = fitting_pictures((row["source"] for row in rows), pictures)
    for row, best in zip(rows, fitting):
        if len(best) > 1:
            either = " or ".join(pictures[number] for number in best[:2])
            raise UserError(
                f"{relative(path)}: {row['source']} may be {either}; write paths that tell them apart"
            )
        unknown += not best
        area = number_in(path, row, "width", 0) * number_in(path, row, "height", 0)
        if best and (best[0] not in largest or area > largest[best[0]][0]):
            largest[best[0]] = area, row
    if not largest:
        raise UserError(
            f"no row of {relative(path)} is of these pictures; it names {rows[0]['source']}, they are such "
            f"as {pictures[0]}"
        )
    return {number: row for number, (_, row) in largest.items()}, unknown


def emotion_in(path: Path, row: dict) -> str:
    """Return the emotion in a row; `uncertain` stands for the likeliest of the classes, whose probabilities
    follow `confidence`."""
    emotion, names = row.get("emotion", ""), list(row)
    if emotion != UNCERTAIN or "confidence" not in row:
        return emotion
    classes = [name for name in names[names.index("confidence") + 1 :] if name not in NO_CLASSES]
    return max(classes, key=lambda name: number_in(path, row, name, 0), default="")


def number_in(path: Path, row: dict, column: str, empty: float, most: float = 1e6) -> float:
    """Return a number from 0 to `most` in a row, or `empty`; raises UserError if it is anything else."""
    text = row.get(column, "")
    if not text:
        return empty
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = np.nan
    if not 0 <= value <= most:
        raise UserError(f"{relative(path)}: {column} is {text[:40]}, not a number from 0 to {most:g}")
    return value
