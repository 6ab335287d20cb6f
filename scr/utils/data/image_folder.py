"""Pictures with labels, as data sets come: a folder for each class, or FER+'s votes beside the pictures."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import EMOTIONS, UserError, canonical_emotion, note, relative
from ..faces.images import is_image
from ..folders import list_files, list_reasons
from .classes import MOST_CLASSES, class_name, list_names, name_problem

FERPLUS_COLUMNS = tuple("neutral happiness surprise sadness anger disgust fear contempt unknown NF".split())
VOTES = len(FERPLUS_COLUMNS)
_SPLIT_NAMES = {
    "train": "train training fer2013train",
    "val": "val valid validation fer2013valid publictest",
    "test": "test testing fer2013test privatetest",
}
_SPLIT_FOLDERS = {name: split for split, names in _SPLIT_NAMES.items() for name in names.split()}


@dataclass(frozen=True)
class LabelledImage:
    """A picture file with what its place in the folder, or the label file, says about it."""

    path: Path
    label: str
    split: str = ""
    subject: str = ""
    session: str = ""
    votes: tuple[int, ...] = (0,) * VOTES


def find_labelled_images(
    root: Path, classes: Sequence[str] | None = None
) -> tuple[list[LabelledImage], Counter]:
    """Return the pictures of a tree with a folder for each class, and a count of those left out by folder.

    With `classes`, the nearest folder named after one of them is the label. Without, that of a known emotion
    (any case, usual synonyms), or another folder on the same level as theirs; where none is known, each
    folder right below `root` is a class. A `Train`/`Valid`/`Test` folder above gives the split, any other
    folder right above the class the subject. Raises UserError if there is nothing, or more classes than a
    model can have.
    """
    if not root.is_dir():
        raise UserError(
            f"no folder {relative(root)}; give --images a folder with one sub-folder for each class"
        )
    images, left_out, renamed = [], Counter(), set()
    paths = _list_pictures(root)
    folders = {path.parent: (root.name, *path.parent.relative_to(root).parts) for path in paths}
    places = _class_places(folders, classes)
    for path in paths:
        names, place = folders[path.parent], places[path.parent]
        label = "" if place is None else class_name(names[place])
        if problem := name_problem(label):
            reason = f", a name that {problem}" if label else ""
            left_out[f"in {'/'.join(names)} (no class's folder{reason})"] += 1
            continue
        above = names[1:place]
        splits = [_SPLIT_FOLDERS[name.lower()] for name in above if name.lower() in _SPLIT_FOLDERS]
        subject = above[-1] if above and above[-1].lower() not in _SPLIT_FOLDERS else ""
        if label not in names[place].lower():  # `Happy` and `sadness` need no word
            renamed.add(f"{names[place].lower()} as {label}")
        images.append(LabelledImage(path, label, splits[-1] if splits else "", subject))
    if renamed:
        note(f"folders taken for known emotions: {list_names(sorted(renamed))}")
    if not images:
        named = f" named {' or '.join(classes)}" if classes else " of a class"
        what = f"{len(paths)} pictures, none in a folder{named}" if paths else "no pictures"
        raise UserError(f"{relative(root)} holds {what}; put them into folders such as {', '.join(EMOTIONS)}")
    if len(found := sorted({image.label for image in images})) > MOST_CLASSES:
        raise UserError(
            f"{relative(root)} holds {len(found)} folders that could be classes ({list_names(found)}), and a "
            f"model has at most {MOST_CLASSES}; name those you mean: --classes NAME NAME"
        )
    if len({image.subject for image in images}) == 1:  # one folder above all of them: not a person's
        images = [replace(image, subject="") for image in images]
    return images, left_out


def _list_pictures(root: Path) -> list[Path]:
    """Return the pictures under `root`, and say what else lies there."""
    paths, left_out = list_files(root, is_image)
    if left_out:
        note(f"left out of {relative(root)}: {list_reasons(left_out)}")
    return paths


def _class_places(
    folders: dict[Path, tuple[str, ...]], classes: Sequence[str] | None
) -> dict[Path, int | None]:
    """Return which of a folder's names, its own and those above it from the root, is its class, or None."""

    def is_class(name: str) -> bool:
        return class_name(name) in classes if classes else canonical_emotion(name) is not None

    def levels(names: tuple[str, ...]) -> list[int]:  # without the root, and what is a split
        return [place for place, name in enumerate(names) if place and name.lower() not in _SPLIT_FOLDERS]

    known = {
        folder: max((place for place, name in enumerate(names) if is_class(name)), default=None)
        for folder, names in folders.items()
    }
    if classes:
        return known
    # How many folders below the root known emotions lie: own classes lie there, too.
    theirs = {levels(folders[folder]).index(place) for folder, place in known.items() if place} or {0}
    for folder, names in folders.items():
        if known[folder] is None:
            own = [place for level, place in enumerate(levels(names)) if level in theirs]
            known[folder] = max(own, default=None)
    return known


def read_ferplus(root: Path, labels: Path) -> tuple[list[LabelledImage], Counter]:
    """Return FER2013's pictures with FER+ votes, and a count of those left out by reason.

    The label is the plurality of the ten votes (Barsoum et al. 2016); ties, and pictures that most voters
    found to be unknown or no face, are left out. Raises UserError if the file is not FER+ or no picture of it
    is there.
    """
    if not labels.is_file():
        raise UserError(f"no file {relative(labels)}; FER+ calls it fer2013new.csv")
    try:
        rows = _read_votes(labels)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{relative(labels)} is not a FER+ label file ({error}); give --labels FER+'s fer2013new.csv"
        ) from error
    images, left_out = [], Counter()
    paths = _list_pictures(root)
    for path in paths:
        votes = rows.get(path.name)
        if votes is None:
            left_out["not in the label file"] += 1
        elif votes.count(max(votes)) > 1:
            left_out["votes tied"] += 1
        elif (label := canonical_emotion(FERPLUS_COLUMNS[votes.index(max(votes))])) is None:
            left_out["voted unknown or no face"] += 1
        else:
            split = _SPLIT_FOLDERS.get(path.parent.name.lower(), "")
            images.append(LabelledImage(path, label, split, votes=votes))
    if not images:
        raise UserError(f"no picture under {relative(root)} is named in {relative(labels)}; check --images")
    return images, left_out


def _read_votes(labels: Path) -> dict[str, tuple[int, ...]]:
    """Return the ten votes on each picture, by its file's name."""
    data = labels.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # as spreadsheets save it: names and numbers are the same
    table = csv.DictReader(text.splitlines())
    if missing := {"Image name", *FERPLUS_COLUMNS} - set(table.fieldnames or ()):
        raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
    rows = {}
    for row in table:
        if None in row.values():
            raise ValueError(f"line {table.line_num} is too short")
        votes = tuple(int(row[name] or 0) for name in FERPLUS_COLUMNS)
        if not all(0 <= vote <= 255 for vote in votes):
            raise ValueError(f"line {table.line_num} has {min(votes)} to {max(votes)} votes")
        if row["Image name"]:
            rows[row["Image name"]] = votes
    return rows


def apply_patterns(
    images: Sequence[LabelledImage], root: Path, subject: str | None, split: str | None
) -> list[LabelledImage]:
    """Return the pictures with subject (and session) and split taken from their paths under `root`.

    The patterns are regular expressions with groups of these names, searched for in the path. Pictures that
    one does not fit keep what they have; raises UserError if that is all of them, or the pattern is none.
    """
    images = _take(images, root, "--subject-pattern", subject, ("subject", "session"))
    return _take(images, root, "--split-pattern", split, ("split",))


def _take(
    images: Sequence[LabelledImage], root: Path, flag: str, text: str | None, names: tuple[str, ...]
) -> list[LabelledImage]:
    if text is None:
        return list(images)
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"{flag} {text}: not a regular expression ({error})") from error
    if names[0] not in pattern.groupindex:
        raise UserError(f"{flag} {text}: it needs a group of that name, such as (?P<{names[0]}>[^_/]+)_")
    found = [pattern.search(image.path.relative_to(root).as_posix()) for image in images]
    if not any(found):
        raise UserError(f"{flag} {text} fits none of {len(images)} names, such as {images[0].path.name}")
    if missing := found.count(None):
        note(f"{flag}: {missing} of {len(images)} names do not fit and keep what their folders say")
    taken = [one.groupdict() if one else {} for one in found]
    taken = [{name: values[name] for name in names if values.get(name)} for values in taken]
    for values in taken:
        if "split" in values and values["split"] not in _SPLIT_FOLDERS:
            raise UserError(f"{flag} {text} finds {values['split']}, no split; train, val, test are")
        values |= {"split": _SPLIT_FOLDERS[values["split"]]} if "split" in values else {}
    return [replace(image, **values) for image, values in zip(images, taken)]
