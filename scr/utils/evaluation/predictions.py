"""What a system predicts for labelled pictures: by a model, from probabilities, from a table of another
program; its figures, and several systems side by side."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import MODELS, UserError, note, relative
from ..data.classes import class_name, list_names
from ..data.face_set import FaceSet
from ..faces.features import face_box
from ..model.bundle import load_info
from ..model.classifier import EmotionClassifier
from .metrics import MISSED, calibration_error, compare_hits, evaluate_predictions
from .tables import emotion_in, largest_faces, number_in, read_emotions

FACE_WIDTHS = (1, 32, 48, 64, 96, 128, 256)
"""Pixels at which the figures by face width part."""
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

    @property
    def width_span(self) -> np.ndarray:
        """The span of pixels (n,) that each face's width lies in; empty where it is unknown."""
        spans = [f"{low} to {high} px" for low, high in zip(FACE_WIDTHS, FACE_WIDTHS[1:])]
        return np.array(["", *spans, f"{FACE_WIDTHS[-1]} px and more"])[np.digitize(self.width, FACE_WIDTHS)]

    def figures(self) -> dict:
        """Return the figures of all pictures, and the calibration error of the faces found."""
        rated = self.rated
        return {
            "all": evaluate_predictions(self.label, self.predicted, self.classes),
            "ece": calibration_error(self.confidence[rated], self.right[rated]) if rated.any() else None,
        }


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
    tell_seen("the shipped model", info, pictures)
    whole = pictures.files is not None or pictures.faces.crop is not None
    model = EmotionClassifier(MODELS if whole else f"{MODELS.name}:landmarks")
    model.narrow_to(pictures.label.tolist())
    return model


def tell_seen(name: str, info: dict, pictures: Pictures) -> None:
    """Say if a model, of whose JSON `info` is, was trained on pictures of the same sources."""
    counts = info.get("data", {}).get("counts", {})
    seen = {key.split("/")[1] for key in counts if key.startswith(("train/", "val/"))}
    if known := sorted(seen & set(pictures.source.tolist())):
        note(
            f"{name} was trained on pictures of {list_names(known)}; if these were among them, its figures "
            "here flatter"
        )


def read_predictions(path: Path, pictures: Pictures) -> Predictions:
    """Return what a table predicts for pictures; one without a row, or with an empty emotion, is missed.

    The table is CSV (comma, semicolon or tab; a decimal comma will do) or JSON lines, as main.py --output
    writes them, with the columns `source`, the picture's path or as much of its end as tells it from others,
    and `emotion`; optional are `confidence` (0 to 1), and `width` and `height` of the face: of several faces
    on a picture the largest counts. Where main.py is `uncertain`, its likeliest class counts. Emotions beyond
    the pictures' labels count as wrong. Raises UserError if the table can't be read or fits none of the
    pictures.
    """
    rows = read_emotions(path)
    of_picture, unknown = largest_faces(path, rows, pictures.name.tolist())
    if absent := len(pictures) - len(of_picture):
        note(f"{absent} of {len(pictures)} pictures have no row in {relative(path)}: counted as no face")
    if unknown:
        note(f"{unknown} rows of {relative(path)} are of other pictures: left out")
    found = [of_picture.get(number, {}) for number in range(len(pictures))]
    emotions = [class_name(emotion_in(path, row)) for row in found]
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
        np.array([number_in(path, row, "confidence", np.nan, 1.0) for row in found]),
        pictures.source,
        np.zeros(len(pictures)),
    )


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
