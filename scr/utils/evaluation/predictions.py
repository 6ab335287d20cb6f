"""What a system predicts for labelled pictures: by a model, from probabilities, from a table of another
program; its figures, and several systems side by side."""

import csv
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..config import MODELS, UserError, note, relative
from ..data.classes import class_name, list_names
from ..data.face_set import FaceSet
from ..faces.features import BLENDSHAPE_NAMES, face_box
from ..faces.pose import POSE
from ..model.bundle import load_info
from ..model.classifier import EmotionClassifier
from .metrics import MISSED, calibration_error, compare_hits, evaluate_predictions

FACE_WIDTHS = (1, 32, 48, 64, 96, 128, 256)
"""Pixels at which the figures by face width part."""
UNCERTAIN = "uncertain"
"""What main.py writes where no class is likely enough."""
NO_CLASSES = {*POSE, *BLENDSHAPE_NAMES}
"""Columns that main.py may add after the probabilities of the classes."""
SHIPPED = "shipped"
"""What the model in `models` is called beside others."""


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures: name, label and source of each (n,).

    faces: their faces as a set, whose missed pictures are the last ones, or None. files: their paths, in
    the same order, or None.
    """

    name: np.ndarray
    label: np.ndarray
    source: np.ndarray
    faces: FaceSet | None = None
    files: list[Path] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def of_set(cls, faces: FaceSet) -> "Pictures":
        """Return the pictures of a set, named by source and path."""
        path, label, source = (
            np.concatenate([getattr(faces, name), faces.missed[name]]) for name in ("path", "label", "source")
        )
        names = [f"{one}/{other}" for one, other in zip(source.tolist(), path.tolist())]
        return cls(np.array(names), label, source, faces)

    def of_classes(self, classes: Sequence[str]) -> "Pictures":
        """Return the pictures whose label is one of `classes`."""
        kept = np.isin(self.label, classes)
        return Pictures(
            self.name[kept],
            self.label[kept],
            self.source[kept],
            self.faces and self.faces.of_classes(classes),
            self.files and [path for path, keep in zip(self.files, kept) if keep],
        )


@dataclass(frozen=True)
class Predictions:
    """What a system predicts for pictures, a row for each (n,).

    classes: all that it may predict. label, predicted: indices into them; `MISSED` is predicted where no face
    was found. confidence of the prediction, nan where it is unknown; width of the face in pixels, 0 likewise.
    """

    system: str
    classes: tuple[str, ...]
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    source: np.ndarray
    width: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Tell of each picture whether the prediction is the label (n,)."""
        return self.predicted == self.label

    @property
    def rated(self) -> np.ndarray:
        """Tell of each picture whether there is a prediction of known confidence (n,)."""
        return (self.predicted != MISSED) & np.isfinite(self.confidence)

    def figures(self) -> dict:
        """Return the figures of all pictures, of each source, and of the faces found by their width."""
        rated = self.rated
        return {
            "all": evaluate_predictions(self.label, self.predicted, self.classes),
            "ece": calibration_error(self.confidence[rated], self.right[rated]) if rated.any() else None,
            "sources": self._by_group(self.source),
            "face_widths": self._by_group(_width_group(self.width), self.width > 0),
        }

    def _by_group(self, group: np.ndarray, rows: np.ndarray | slice = slice(None)) -> dict:
        group, label, predicted = group[rows], self.label[rows], self.predicted[rows]
        names = np.unique(group).tolist()
        return {
            name: evaluate_predictions(label[group == name], predicted[group == name], self.classes)
            for name in names
            if len(names) > 1
        }


def _width_group(width: np.ndarray) -> np.ndarray:
    """Return the span of pixels (n,) that each width lies in; empty where it is unknown."""
    spans = [f"{low:>4} to {high:>4} px" for low, high in zip(FACE_WIDTHS, FACE_WIDTHS[1:])]
    return np.array(["", *spans, f"{FACE_WIDTHS[-1]:>4} px and more"])[np.digitize(width, FACE_WIDTHS)]


def label_index(pictures: Pictures, classes: Sequence[str]) -> np.ndarray:
    """Return the labels as indices (n,) into `classes`; raises ValueError for any other label."""
    return np.array([tuple(classes).index(name) for name in pictures.label.tolist()], np.int64)


def predict_set(system: str, model: EmotionClassifier, pictures: Pictures) -> Predictions:
    """Return what a model predicts for the faces of a set."""
    faces = pictures.faces
    prediction = model.predict(faces.landmarks, faces.blendshapes, faces.crop)
    return of_probabilities(system, model.classes, pictures, prediction.probabilities)


def of_probabilities(
    system: str, classes: Sequence[str], pictures: Pictures, probabilities: np.ndarray
) -> Predictions:
    """Return the predictions that probabilities (faces, classes) of the faces of a set amount to."""
    faces, missed = pictures.faces, len(pictures) - len(pictures.faces)
    return Predictions(
        system,
        tuple(classes),
        label_index(pictures, classes),
        np.append(probabilities.argmax(axis=1), np.full(missed, MISSED)),
        np.append(probabilities.max(axis=1, initial=0), np.full(missed, np.nan)),
        pictures.source,
        np.append(face_box(faces.landmarks)[:, 2] * faces.width, np.zeros(missed)),
    )


def shipped_beside(pictures: Pictures) -> EmotionClassifier | None:
    """Return the shipped model to compare another with on pictures: its landmark network without crops.

    It is narrowed to their classes. None, with a note, if it does not read them; says if it was trained on
    pictures of their source.
    """
    try:
        info = load_info(MODELS)
    except UserError:
        return None
    if unknown := sorted(set(pictures.label.tolist()) - set(info["classes"])):
        note(f"not compared with the shipped model, which does not read {list_names(unknown)}")
        return None
    seen = {key.split("/")[1] for key in info.get("data", {}).get("counts", {})}
    if known := sorted(seen & set(pictures.source.tolist())):
        note(
            f"the shipped model was trained on pictures of {list_names(known)}; if these were among them, "
            "its figures here flatter"
        )
    whole = pictures.files is not None or pictures.faces.crop is not None
    model = EmotionClassifier(MODELS if whole else f"{MODELS.name}:landmarks")
    model.narrow_to(pictures.label.tolist())
    return model


def read_predictions(path: Path, pictures: Pictures) -> Predictions:
    """Return what a table predicts for pictures; one without a row, or with an empty emotion, is missed.

    The table is CSV (comma, semicolon or tab; a decimal comma will do) or JSON lines, as main.py --output
    writes them, with the columns `source`, the picture's path or as much of its end as tells it from others,
    and `emotion`; optional are `confidence` (0 to 1), and `width` and `height` of the face: of several faces
    on a picture the largest counts. Where main.py is `uncertain`, its likeliest class counts. Emotions beyond
    the pictures' labels count as wrong. Raises UserError if the table can't be read or fits none of the
    pictures.
    """
    rows = _read_rows(path)
    of_picture, unknown = _largest_faces(path, rows, pictures)
    if absent := len(pictures) - len(of_picture):
        note(f"{absent} of {len(pictures)} pictures have no row in {relative(path)}: counted as no face")
    if unknown:
        note(f"{unknown} rows of {relative(path)} are of other pictures: left out")
    found = [of_picture.get(number, {}) for number in range(len(pictures))]
    emotions = [class_name(_emotion(path, row)) for row in found]
    labels = sorted(set(pictures.label.tolist()))
    others = Counter(name for name in emotions if name and name not in labels)
    if others:
        counts = ", ".join(f"{count} {name}" for name, count in others.most_common())
        note(f"predictions that no picture is labelled with count as wrong: {counts}")
    classes = (*labels, *sorted(others))
    return Predictions(
        path.name,
        classes,
        label_index(pictures, classes),
        np.array([classes.index(name) if name else MISSED for name in emotions], np.int64),
        np.array([_number(path, row, "confidence", np.nan, 1.0) for row in found]),
        pictures.source,
        np.zeros(len(pictures)),
    )


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, by column; each has a source and an emotion, which may be empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            delimiter = max(",;\t", key=lines[0].count) if lines else ","
            rows = list(csv.DictReader(lines, delimiter=delimiter))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"can't read {relative(path)}: {error}; it should be a .csv or .jsonl") from error
    if not rows:
        raise UserError(f"{relative(path)} has no rows; python scr/main.py --output writes such a table")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {"source", "emotion"} <= set(row):
            there = list_names(map(str, row)) if isinstance(row, dict) else "no names"
            raise UserError(
                f"row {number} of {relative(path)} has {there} for columns; it needs source (the picture) "
                "and emotion, and may have confidence, width and height"
            )
    return [{str(name): "" if value is None else str(value) for name, value in row.items()} for row in rows]


def _largest_faces(path: Path, rows: list[dict], pictures: Pictures) -> tuple[dict[int, dict], int]:
    """Return for each picture, by number, the row of its largest face, and how many rows fit no picture."""
    places = defaultdict(list)
    parts = [PurePosixPath(name).parts for name in pictures.name.tolist()]
    for number, names in enumerate(parts):
        places[names[-1]].append(number)
    largest, unknown = {}, 0
    for row in rows:
        names = PurePosixPath(row["source"].replace("\\", "/")).parts or ("",)
        fits = [
            (len(os.path.commonprefix([names[::-1], parts[number][::-1]])), number)
            for number in places.get(names[-1], [])
        ]
        best = [number for length, number in fits if length == max(fits)[0]]
        if len(best) > 1:
            either = " or ".join(pictures.name[best[:2]].tolist())
            raise UserError(
                f"{relative(path)}: {row['source']} may be {either}; write paths that tell them apart"
            )
        unknown += not best
        area = _number(path, row, "width", 0) * _number(path, row, "height", 0)
        if best and (best[0] not in largest or area > largest[best[0]][0]):
            largest[best[0]] = area, row
    if not largest:
        raise UserError(
            f"no row of {relative(path)} is of these pictures; it names {rows[0]['source']}, they are such "
            f"as {pictures.name[0]}"
        )
    return {number: row for number, (_, row) in largest.items()}, unknown


def _emotion(path: Path, row: dict) -> str:
    """Return the emotion in a row; `uncertain` stands for the likeliest of the classes, whose probabilities
    follow `confidence`."""
    emotion, names = row.get("emotion", ""), list(row)
    if emotion != UNCERTAIN or "confidence" not in row:
        return emotion
    classes = [name for name in names[names.index("confidence") + 1 :] if name not in NO_CLASSES]
    return max(classes, key=lambda name: _number(path, row, name, 0), default="")


def _number(path: Path, row: dict, column: str, empty: float, most: float = 1e6) -> float:
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


def verdict(first: Predictions, second: Predictions) -> str:
    """Return in a sentence whether the second system reads the same pictures better than the first."""
    gain, low, high = compare_hits(first.label, first.right, second.right)
    figures = f"balanced accuracy {gain:+.3f} (95% {low:+.3f} to {high:+.3f})"
    if low > 0:
        return f"{second.system} reads these pictures better than {first.system}: {figures}"
    if high < 0:
        return f"{second.system} reads these pictures worse than {first.system}: {figures}"
    return (
        f"{second.system} against {first.system}: {figures}; these {len(first.label):,} pictures do not show "
        "which is better"
    )


def side_by_side(systems: Sequence[Predictions]) -> str:
    """Return a table of several systems on the same pictures, and a verdict on each but the first, against
    the first."""
    figures = [one.figures()["all"] for one in systems]
    labels = list(figures[0]["recall"])
    wide = max(8, *(len(one.system) for one in systems))
    head = f"{'':<{wide}}{'no face':>9}{'balanced accuracy (95%)':>27}{'macro-F1':>10}  recall:"
    lines = [head + "".join(f"{name:>{max(9, len(name) + 1)}}" for name in labels)]
    for one, row in zip(systems, figures):
        balanced, (low, high) = row["balanced_accuracy"], row["balanced_accuracy_interval"]
        recalls = "".join(f"{row['recall'][name][0]:>{max(9, len(name) + 1)}.3f}" for name in labels)
        lines.append(
            f"{one.system:<{wide}}{row['missed']:>9}{f'{balanced:.3f} ({low:.3f} to {high:.3f})':>27}"
            f"{row['macro_f1']:>10.3f}{'':>9}{recalls}"
        )
    return "\n".join(lines + [verdict(systems[0], other) for other in systems[1:]])
