"""A folder of labelled pictures, prepared for training: faces found, copies left out, and split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config import DATA, SEED, UserError, note, relative
from .audit import drop_duplicates
from .classes import check_classes, list_names
from .extraction import extract
from .face_set import SUFFIX, FaceSet, concatenate, load_face_set, save_face_set
from .image_folder import apply_patterns, find_labelled_images
from .splits import assign_split

LEAST_OF_CLASS = 10
"""Faces of a class that it takes to hold some out."""
OF_TESTED = "pictures of people who are also in the test part"
TESTED = 0.2
"""Share of the pictures that are held out as test part: of some hundreds a tenth says little."""


@dataclass(frozen=True)
class Prepared:
    """A split set with its files, its classes, and numbers of pictures that are not in it, by the reason."""

    files: list[Path]
    data: FaceSet
    classes: tuple[str, ...]
    left_out: Counter


def prepare(
    images: Path,
    test_images: Path | None,
    classes: Sequence[str] | None,
    subject_pattern: str | None,
    jobs: int,
    seed: int = SEED,
) -> Prepared:
    """Return the faces on the pictures of a folder with one for each class, without copies, and split.

    The test part are the pictures of `test_images`, whose copies are not learned from; without it a fifth, or
    what lies in a folder `test`. Written to data/NAME_split.faces; data/NAME.faces keeps all that was found,
    so that the next run reads new pictures only. Raises UserError for a folder with too few faces.
    """
    name = images.resolve().name
    note("step 1 of 3: finding faces")
    keeps = "" if test_images else None
    data, classes, left_out = _read(images, name, classes, subject_pattern, jobs, keeps)
    if test_images:
        test, _, others = _read(test_images, f"{name}_test", classes, None, jobs, "test")
        data, left_out = concatenate([data, test]), left_out + others
    note("step 2 of 3: leaving out copies, holding out test pictures")
    data, copies = drop_duplicates(data)
    learned = data.select(data.source == name, data.missed.source == name)
    require_enough(learned, classes, relative(images))
    found = len(learned)
    learned = assign_split(learned, seed, 0 if test_images else TESTED, duplicate=np.arange(found))
    left_out[OF_TESTED] += found - len(learned)
    data = concatenate([learned, data.select(data.source != name, data.missed.source != name)])
    file = DATA / f"{name}_split{SUFFIX}"
    save_face_set(file, data)
    return Prepared([file], data, classes, left_out + copies + Counter(data.missed.reason.tolist()))


def require_enough(data: FaceSet, classes: Sequence[str], where: str) -> None:
    """Raise UserError if a set, named by `where`, has too few faces of a class to hold any out."""
    counts = Counter(data.label.tolist())
    if few := [name for name in classes if counts[name] < LEAST_OF_CLASS]:
        raise UserError(
            f"fewer than {LEAST_OF_CLASS} faces of {list_names(few)} in {where}: too few to hold any out; "
            "add pictures, or name the other classes: --classes"
        )


def _read(
    folder: Path,
    source: str,
    classes: Sequence[str] | None,
    subject_pattern: str | None,
    jobs: int,
    split: str | None,
) -> tuple[FaceSet, tuple[str, ...], Counter]:
    """Return the faces of a folder, its classes, and a count of pictures that belong to none.

    split: of all pictures; None: as their folders say.
    """
    root = folder.resolve()
    images, left_out = find_labelled_images(root, classes)
    images = apply_patterns(images, root, subject_pattern, None)
    if split is not None:
        images = [replace(image, split=split) for image in images]
    classes = check_classes(classes or sorted({image.label for image in images}), relative(root))
    file = DATA / f"{source}{SUFFIX}"
    file.parent.mkdir(parents=True, exist_ok=True)
    extract(images, root, source, file, jobs)
    return load_face_set(file), classes, left_out
