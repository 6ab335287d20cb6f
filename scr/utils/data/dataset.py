"""Labelled landmarks: finding pictures, files, duplicates, splits, balance, class weights."""

import csv
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from utils.config import EMOTIONS, SEED, UserError, atomic_path, canonical_emotion, relative
from utils.data.checks import check_columns, check_faces
from utils.data.classes import MOST_CLASSES, check_classes, class_name, list_names, name_problem
from utils.faces.features import ALL_POINTS, BLENDSHAPES, MESH_POINTS
from utils.faces.images import list_images

FERPLUS_COLUMNS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
VOTES = len(FERPLUS_COLUMNS)

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "fer2013train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "fer2013valid": "val",
    "publictest": "val",
    "test": "test",
    "testing": "test",
    "fer2013test": "test",
    "privatetest": "test",
}


@dataclass(frozen=True)
class LabelledImage:
    """A picture file with what its place in the folder, or the label file, says about it."""

    path: Path
    label: str
    split: str = ""
    subject: str = ""
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
    images, left_out = [], Counter()
    paths = list_images(root)
    folders = {path.parent: (root.name, *path.parent.relative_to(root).parts) for path in paths}
    places = _class_places(folders, classes)
    for path in paths:
        names, place = folders[path.parent], places[path.parent]
        if place is None or name_problem(class_name(names[place])):
            reason = "" if place is None else f", a name that {name_problem(class_name(names[place]))}"
            left_out[f"in {'/'.join(names)} (no class's folder{reason})"] += 1
            continue
        above = names[1:place]
        splits = [_SPLIT_FOLDERS[name.lower()] for name in above if name.lower() in _SPLIT_FOLDERS]
        subject = above[-1] if above and above[-1].lower() not in _SPLIT_FOLDERS else ""
        images.append(LabelledImage(path, class_name(names[place]), (splits or [""])[-1], subject))
    if not images:
        named = f" named {' or '.join(classes)}" if classes else " of a class"
        what = f"{len(paths)} pictures, none in a folder{named}" if paths else "no pictures"
        raise UserError(f"{relative(root)} holds {what}; put them into folders such as {', '.join(EMOTIONS)}")
    if len(found := sorted({image.label for image in images})) > MOST_CLASSES:
        raise UserError(
            f"{relative(root)} holds {len(found)} folders that could be classes ({list_names(found)}), "
            f"and a model "
            f"has at most {MOST_CLASSES}; name those you mean: --classes NAME NAME"
        )
    return images, left_out


def _class_places(
    folders: dict[Path, tuple[str, ...]], classes: Sequence[str] | None
) -> dict[Path, int | None]:
    """Return which of a folder's names, its own and those above it from the root, is its class, or None."""

    def is_class(name: str) -> bool:
        return class_name(name) in classes if classes else canonical_emotion(name) is not None

    def levels(
        names: tuple[str, ...],
    ) -> list[int]:  # places of the names that are no split, without the root's
        return [place for place, name in enumerate(names) if place and name.lower() not in _SPLIT_FOLDERS]

    known = {
        folder: max((place for place, name in enumerate(names) if is_class(name)), default=None)
        for folder, names in folders.items()
    }
    if classes:
        return known
    theirs = {
        levels(folders[folder]).index(place) for folder, place in known.items() if place
    }  # how many folders below the root known emotions lie
    places = {}
    for folder, names in folders.items():
        own = [place for level, place in enumerate(levels(names)) if level in (theirs or {0})]
        places[folder] = known[folder] if known[folder] is not None else max(own, default=None)
    return places


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
    for path in list_images(root):
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


@dataclass
class LandmarkSet:
    """A landmark set, column by column (the data contract); n faces, and m pictures that gave none.

    landmarks (n, 478 or 468, 3) float32 in image widths, blendshapes (n, 52) float32; the rest (n,): label,
    source, path, sha256, split (`train`, `val`, `test` or empty), subject, session (empty if unknown), width
    and height in pixels, phash uint64; votes (n, 10) in the order of `FERPLUS_COLUMNS`, all zero without
    FER+.
    """

    landmarks: np.ndarray
    label: np.ndarray
    blendshapes: np.ndarray = None
    source: np.ndarray = None
    path: np.ndarray = None
    sha256: np.ndarray = None
    split: np.ndarray = None
    subject: np.ndarray = None
    session: np.ndarray = None
    width: np.ndarray = None
    height: np.ndarray = None
    phash: np.ndarray = None
    votes: np.ndarray = None
    missed_label: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    missed_source: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    missed_path: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    missed_reason: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    missed_split: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))

    def __post_init__(self):
        n = len(self.landmarks)
        defaults = {
            "blendshapes": np.zeros((n, BLENDSHAPES), np.float32),
            "phash": np.zeros(n, np.uint64),
            "width": np.zeros(n, np.int32),
            "height": np.zeros(n, np.int32),
            "votes": np.zeros((n, VOTES), np.uint8),
        }
        for name in _ROW_COLUMNS:
            if getattr(self, name) is None:
                setattr(self, name, defaults.get(name, np.zeros(n, "U1")))
            if len(getattr(self, name)) != n:
                raise ValueError(f"column {name} has {len(getattr(self, name))} rows, landmarks {n}")

    def __len__(self) -> int:
        return len(self.landmarks)

    def select(self, rows: np.ndarray, missed: np.ndarray | slice = slice(None)) -> "LandmarkSet":
        """Return the faces, and the missed pictures, that masks or index arrays name."""
        return LandmarkSet(
            **{name: getattr(self, name)[rows] for name in _ROW_COLUMNS},
            **{name: getattr(self, name)[missed] for name in _MISSED_COLUMNS},
        )

    def of_classes(self, classes: Sequence[str]) -> "LandmarkSet":
        """Return the faces, and the missed pictures, whose label is one of `classes`."""
        return self.select(np.isin(self.label, classes), np.isin(self.missed_label, classes))

    def part(self, split: str) -> "LandmarkSet":
        """Return the faces, and the missed pictures, of one side of the split."""
        return self.select(self.split == split, self.missed_split == split)

    def class_index(self, classes: Sequence[str] = EMOTIONS) -> np.ndarray:
        """Return the labels as indices (n,) int64 into `classes`; raises ValueError for any other label."""
        return np.array([tuple(classes).index(name) for name in self.label.tolist()], np.int64)

    def missed_index(self, classes: Sequence[str] = EMOTIONS) -> np.ndarray:
        """Return the labels of the missed pictures as indices (m,) int64 into `classes`."""
        return np.array([tuple(classes).index(name) for name in self.missed_label.tolist()], np.int64)


_MISSED_COLUMNS = tuple(item.name for item in fields(LandmarkSet) if item.name.startswith("missed_"))
_ROW_COLUMNS = tuple(item.name for item in fields(LandmarkSet) if item.name not in _MISSED_COLUMNS)


def concatenate(sets: Sequence[LandmarkSet]) -> LandmarkSet:
    """Return one landmark set of several; points that not all of them have (the irises) are dropped."""
    points = min(part.landmarks.shape[1] for part in sets)
    columns = {
        name: np.concatenate([getattr(part, name) for part in sets])
        for name in (*_ROW_COLUMNS, *_MISSED_COLUMNS)
        if name != "landmarks"
    }
    return LandmarkSet(landmarks=np.concatenate([part.landmarks[:, :points] for part in sets]), **columns)


def from_rows(images: Sequence[LabelledImage], rows: Sequence[dict], root: Path, source: str) -> LandmarkSet:
    """Return the landmark set of pictures and their rows (of `extraction.extract_one`) under `root`."""
    pairs = list(zip(images, rows, strict=True))
    found = [(image, row) for image, row in pairs if "skipped" not in row]
    missed = [(image, row) for image, row in pairs if "skipped" in row]

    def text(values) -> np.ndarray:
        return np.array(list(values) or [""], dtype=str)[: len(values)]

    def stack(key: str, shape: tuple, dtype) -> np.ndarray:
        return np.array([row[key] for _, row in found], dtype).reshape(len(found), *shape)

    return LandmarkSet(
        landmarks=stack("landmarks", (ALL_POINTS, 3), np.float32),
        blendshapes=stack("blendshapes", (BLENDSHAPES,), np.float32),
        label=text([image.label for image, _ in found]),
        source=text([source] * len(found)),
        path=text([image.path.relative_to(root).as_posix() for image, _ in found]),
        sha256=text([row["sha256"] for _, row in found]),
        split=text([image.split for image, _ in found]),
        subject=text([image.subject for image, _ in found]),
        session=text([""] * len(found)),
        width=stack("width", (), np.int32),
        height=stack("height", (), np.int32),
        phash=stack("phash", (), np.uint64),
        votes=np.array([image.votes for image, _ in found], np.uint8).reshape(len(found), VOTES),
        missed_label=text([image.label for image, _ in missed]),
        missed_source=text([source] * len(missed)),
        missed_path=text([image.path.relative_to(root).as_posix() for image, _ in missed]),
        missed_reason=text([row["skipped"] for _, row in missed]),
        missed_split=text([image.split for image, _ in missed]),
    )


def save_npz(path: Path, data: LandmarkSet) -> None:
    """Write a landmark set as `.npz`, atomically; equal sets give equal bytes."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **{name: getattr(data, name) for name in (*_ROW_COLUMNS, *_MISSED_COLUMNS)})


_TXT_CLASSES = "# classes: "
"""Begins the first line of a `.txt` whose classes are not `EMOTIONS`; `numpy.loadtxt` skips it."""


def save_txt(path: Path, data: LandmarkSet, classes: Sequence[str] = EMOTIONS) -> None:
    """Write the published format, atomically: a face a line, 1404 coordinates and the index of its class.

    Nine significant digits bring a float32 back to the bit. Other classes than `EMOTIONS` are named in the
    first line.
    """
    index = data.class_index(classes)
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        if tuple(classes) != EMOTIONS:
            file.write(f"{_TXT_CLASSES}{', '.join(classes)}\n")
        for face, label in zip(
            data.landmarks[:, :MESH_POINTS].reshape(len(data), -1).tolist(), index.tolist()
        ):
            file.write(" ".join([f"{value:.9g}" for value in face]) + f" {label}\n")


def load_landmarks(path: Path, allow_empty: bool = False) -> LandmarkSet:
    """Return the landmark set in a `.npz` (all columns) or `.txt` (468 points and label) file.

    Raises UserError if the file is missing, is not of the format, or (unless `allow_empty`) holds no face.
    """
    if not path.is_file():
        raise UserError(
            f"no landmark set at {relative(path)}; make one with: python scr/extract_landmarks.py, then "
            "split it with: python scr/balance_dataset.py (--help of both tells how)"
        )
    try:
        data = _read_txt(path) if path.suffix.lower() == ".txt" else _read_npz(path)
    except (ValueError, KeyError, OSError, EOFError, TypeError) as error:
        raise UserError(
            f"{relative(path)} is not a landmark set ({error}); make one with scr/extract_landmarks.py"
        ) from error
    except Exception as error:  # zipfile.BadZipFile, zlib.error: a damaged archive
        raise UserError(
            f"{relative(path)} is damaged ({error}); make it again with scr/extract_landmarks.py"
        ) from error
    if len(data) == 0 and not allow_empty:
        raise UserError(f"{relative(path)} holds no face; check the pictures it was made from")
    return data


def _read_npz(path: Path) -> LandmarkSet:
    if not zipfile.is_zipfile(path):
        raise ValueError("no .npz archive")
    with np.load(path, allow_pickle=False) as archive:
        data = LandmarkSet(
            **{name: archive[name] for name in (*_ROW_COLUMNS, *_MISSED_COLUMNS) if name in archive.files}
        )
    check_columns({name: getattr(data, name) for name in (*_ROW_COLUMNS, *_MISSED_COLUMNS)}, VOTES)
    labels = {*data.label.tolist(), *data.missed_label.tolist()}
    if wrong := sorted(name for name in labels if name != class_name(name) or name_problem(name)):
        raise ValueError(f"labels that are no names of classes: {list_names(wrong)}")
    return data


def _read_txt(path: Path) -> LandmarkSet:
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    named = first.startswith(_TXT_CLASSES)
    classes = (
        check_classes(first.removeprefix(_TXT_CLASSES).split(","), relative(path)) if named else EMOTIONS
    )
    table = np.loadtxt(path, dtype=np.float32, ndmin=2, encoding="utf-8")
    if table.shape[1] != MESH_POINTS * 3 + 1:
        raise ValueError(f"{table.shape[1]} columns, expected {MESH_POINTS * 3 + 1}")
    index = table[:, -1]
    if not np.isin(index, range(len(classes))).all():
        raise ValueError(f"labels must be 0 to {len(classes) - 1}")
    label = np.array(classes)[index.astype(int)]
    source = np.full(len(table), path.stem)
    data = LandmarkSet(landmarks=table[:, :-1].reshape(-1, MESH_POINTS, 3), label=label, source=source)
    check_faces(data.landmarks, data.blendshapes, (MESH_POINTS,))
    return data


def family(path: str) -> str:
    """Return the prefix group of a file name: what stands before its first digit (`ffhq_12.png`: `ffhq_`)."""
    return re.match(r"\D*", Path(path).stem).group()


def find_duplicates(data: LandmarkSet, max_bits: int = 4, max_shift: float = 0.02) -> np.ndarray:
    """Return a group number (n,) for each face; the same number means the same picture, or nearly.

    The same bytes, or perceptual hashes at most `max_bits` apart and mesh points that differ by at most
    `max_shift` image widths on average (registered portraits of two people can share a hash, not a mesh).
    """
    parent = np.arange(len(data))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    mesh = data.landmarks[:, :MESH_POINTS]
    first_with = {}
    for index, digest in enumerate(data.sha256.tolist()):
        if digest and first_with.setdefault(digest, index) != index:
            parent[root(index)] = root(first_with[digest])
    hashed = np.flatnonzero(data.phash)
    for start in range(0, len(hashed), 512):
        rows = hashed[start : start + 512]
        distance = np.bitwise_count(data.phash[rows, None] ^ data.phash[None, hashed[start:]])
        for row, column in zip(*np.nonzero(distance <= max_bits)):
            one, other = rows[row], hashed[start + column]
            if one < other and np.abs(mesh[one] - mesh[other]).mean() <= max_shift:
                parent[root(other)] = root(one)
    return np.array([root(index) for index in range(len(data))], np.int64)


def make_split(
    label: np.ndarray, group: np.ndarray, test: float = 0.1, val: float = 0.2, seed: int = SEED
) -> np.ndarray:
    """Return `train`, `val` or `test` (n,) for each row: stratified by label, a group never on two sides.

    `test` is a part of all rows, `val` a part of the rest (the published 10% and 20%).
    """
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    def part_off(rows: np.ndarray, part: float) -> np.ndarray:
        if len(np.unique(group[rows])) == len(
            rows
        ):  # no groups: scikit-learn's own stratified split, a hundred times faster
            return train_test_split(rows, test_size=part, stratify=label[rows], random_state=seed)[1]
        folds = StratifiedGroupKFold(n_splits=max(2, round(1 / part)), shuffle=True, random_state=seed)
        return rows[next(folds.split(rows, label[rows], group[rows]))[1]]

    rare = [f"{count} of {name}" for name, count in Counter(label.tolist()).items() if count < 4]
    if rare:
        raise UserError(f"too few faces to split: {', '.join(rare)}; at least 4 of each class are needed")
    split = np.full(len(label), "train")
    try:
        if test:
            split[part_off(np.arange(len(label)), test)] = "test"
        split[part_off(np.flatnonzero(split == "train"), val)] = "val"
    except ValueError as error:
        raise UserError(f"too few faces to split ({error}); add pictures") from error
    return split


def class_source_weights(label: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return a weight (n,) for each row, of mean 1: classes equal within each source, a source as its size.

    So the source says nothing about the class (King and Zeng 2001, within strata). With one source it is
    scikit-learn's class_weight='balanced'.
    """
    weight = np.zeros(len(label), np.float32)
    for name in np.unique(source):
        rows = source == name
        classes, index, count = np.unique(label[rows], return_inverse=True, return_counts=True)
        weight[rows] = rows.sum() / (len(classes) * count[index])
    return weight / weight.mean()


def assign_split(
    data: LandmarkSet,
    seed: int = SEED,
    test: float = 0.1,
    val: float = 0.2,
    duplicate: np.ndarray | None = None,
) -> LandmarkSet:
    """Return the set with every face in `train`, `val` or `test`, source by source.

    A source that has all three keeps them. One that has a held-out part (`val` or `test`) keeps it as `test`
    and gives a part `val` of the rest to validation. Else both are made. Duplicates, and a subject's faces,
    stay on one side; `duplicate` gives the numbers of `find_duplicates` where they are known.
    """
    split, missed_split = np.full(len(data), "train"), np.full(len(data.missed_label), "train")
    groups = split_groups(data, duplicate)
    generator = np.random.default_rng(seed)
    for source in np.unique(data.source):
        rows = np.flatnonzero(data.source == source)
        given = data.split[rows]
        missed = data.missed_source == source
        if set(given.tolist()) >= {"train", "val", "test"}:
            split[rows], missed_split[missed] = given, data.missed_split[missed]
            continue
        held_out = np.isin(given, ("val", "test")) & bool((given == "train").any())
        if held_out.any():
            split[rows[held_out]] = "test"
            held_groups = groups[rows[held_out]]
            rows = rows[~held_out]
            leaked = np.isin(groups[rows], held_groups)  # a twin of a held-out face must not be trained on
            split[rows[leaked]] = ""
            rows = rows[~leaked]
            split[rows] = make_split(data.label[rows], groups[rows], test=0, val=val, seed=seed)
            missed_split[missed & np.isin(data.missed_split, ("val", "test"))] = "test"
        else:
            split[rows] = make_split(data.label[rows], groups[rows], test=test, val=val, seed=seed)
            missed_split[missed] = generator.choice(
                ("test", "val", "train"), missed.sum(), p=(test, (1 - test) * val, (1 - test) * (1 - val))
            )
    return replace(data, split=split, missed_split=missed_split).select(split != "")


def split_groups(data: LandmarkSet, duplicate: np.ndarray | None = None) -> np.ndarray:
    """Return a number (n,) for each face: those with the same (picture or person) belong on one side."""
    duplicate = find_duplicates(data) if duplicate is None else duplicate
    person = np.array(
        [f"{source}/{subject}" if subject else "" for source, subject in zip(data.source, data.subject)]
    )
    group = duplicate.copy()
    for name in np.unique(person[person != ""]):
        members = np.isin(duplicate, duplicate[person == name])
        group[members] = group[members].min()
    return group
