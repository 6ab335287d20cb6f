"""Labelled landmarks: files, duplicates, splits, class weights."""

import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from ..config import DATA, EMOTIONS, SEED, UserError, note, relative
from ..faces.crops import CROP_PX
from ..faces.features import ALL_POINTS, BLENDSHAPES, MESH_POINTS
from ..files import atomic_path
from .checks import check_columns, check_landmarks
from .classes import check_classes, class_name, list_names, name_problem
from .image_folder import VOTES, LabelledImage
from .near_hashes import near_pairs
from .rows import CHUNK, Rows, check_member, join, map_member


@dataclass
class FaceSet:
    """A landmark set, column by column (the data contract); n faces, and m pictures that gave none.

    landmarks: `Rows` (n, 478 or 468, 3) float32 in image widths, which stay on disk (an array in memory is
    taken, too); blendshapes (n, 52) float32; the rest (n,): label,
    source, path, sha256, split (`train`, `val`, `test` or empty), subject, session (empty if unknown), width
    and height in pixels, phash uint64; votes (n, 10) in the order of `FERPLUS_COLUMNS`, all zero without
    FER+. crop: `Rows` of the faces' crops (n, CROP_PX, CROP_PX) uint8, which stay on disk, or None for a set
    without crops. maps: `Rows` of what a crop network's trunk makes of them, while it is trained, else None;
    no file holds them.
    """

    landmarks: Rows
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
    crop: Rows | None = None
    maps: Rows | None = None
    missed_label: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    missed_source: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    missed_path: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    missed_reason: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    missed_split: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))

    def __post_init__(self):
        if not isinstance(self.landmarks, Rows):
            self.landmarks = Rows([self.landmarks])
        n = len(self.landmarks)
        defaults = {
            "blendshapes": np.zeros((n, BLENDSHAPES), np.float32),
            "phash": np.zeros(n, np.uint64),
            "width": np.zeros(n, np.int32),
            "height": np.zeros(n, np.int32),
            "votes": np.zeros((n, VOTES), np.uint8),
        }
        for name in self.row_columns:
            if getattr(self, name) is None:
                setattr(self, name, defaults.get(name, np.zeros(n, "U1")))
            if len(getattr(self, name)) != n:
                raise ValueError(f"column {name} has {len(getattr(self, name))} rows, landmarks {n}")

    def __len__(self) -> int:
        return len(self.landmarks)

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The names of the columns that have a row for each face."""
        held = (name for name in ("crop", "maps") if getattr(self, name) is not None)
        return *_FIXED_COLUMNS, *held

    def select(self, rows: np.ndarray, missed: np.ndarray | slice = slice(None)) -> "FaceSet":
        """Return the faces, and the missed pictures, that masks or index arrays name."""
        return FaceSet(
            **{name: getattr(self, name)[rows] for name in self.row_columns},
            **{name: getattr(self, name)[missed] for name in _MISSED_COLUMNS},
        )

    def of_classes(self, classes: Sequence[str]) -> "FaceSet":
        """Return the faces, and the missed pictures, whose label is one of `classes`."""
        kept, missed = np.isin(self.label, classes), np.isin(self.missed_label, classes)
        return self if kept.all() and missed.all() else self.select(kept, missed)

    def part(self, split: str) -> "FaceSet":
        """Return the faces, and the missed pictures, of one side of the split."""
        return self.select(self.split == split, self.missed_split == split)

    def class_index(self, classes: Sequence[str] = EMOTIONS) -> np.ndarray:
        """Return the labels as indices (n,) int64 into `classes`; raises ValueError for any other label."""
        return np.array([tuple(classes).index(name) for name in self.label.tolist()], np.int64)

    def missed_index(self, classes: Sequence[str] = EMOTIONS) -> np.ndarray:
        """Return the labels of the missed pictures as indices (m,) int64 into `classes`."""
        return np.array([tuple(classes).index(name) for name in self.missed_label.tolist()], np.int64)


_MISSED_COLUMNS = tuple(item.name for item in fields(FaceSet) if item.name.startswith("missed_"))
_STORED_COLUMNS = "landmarks", "crop"
_FIXED_COLUMNS = tuple(
    item.name for item in fields(FaceSet) if item.name not in ("crop", "maps", *_MISSED_COLUMNS)
)
_ROW_COLUMNS = *_FIXED_COLUMNS, "crop"


def concatenate(sets: Sequence[FaceSet]) -> FaceSet:
    """Return one landmark set of several; points that not all of them have (the irises) are dropped."""
    if len(sets) == 1:
        return sets[0]
    points = min(part.landmarks.shape[1] for part in sets)
    columns = {
        name: np.concatenate([getattr(part, name) for part in sets])
        for name in (*_ROW_COLUMNS, *_MISSED_COLUMNS)
        if name not in ("landmarks", "crop")
    }
    with_faces = [part.crop for part in sets if len(part)] or [sets[0].crop]
    if all(crop is not None for crop in with_faces):
        columns["crop"] = join(with_faces)
    return FaceSet(landmarks=join([part.landmarks.first(points) for part in sets]), **columns)


def from_rows(images: Sequence[LabelledImage], rows: Sequence[dict], root: Path, source: str) -> FaceSet:
    """Return the landmark set of pictures and their rows (of `extraction.extract_one`) under `root`."""
    pairs = list(zip(images, rows, strict=True))
    found = [(image, row) for image, row in pairs if "skipped" not in row]
    missed = [(image, row) for image, row in pairs if "skipped" in row]

    def text(values) -> np.ndarray:
        return np.array(list(values) or [""], dtype=str)[: len(values)]

    def stack(key: str, shape: tuple, dtype) -> np.ndarray:
        return np.array([row[key] for _, row in found], dtype).reshape(len(found), *shape)

    return FaceSet(
        landmarks=stack("landmarks", (ALL_POINTS, 3), np.float32),
        blendshapes=stack("blendshapes", (BLENDSHAPES,), np.float32),
        label=text([image.label for image, _ in found]),
        source=text([source] * len(found)),
        path=text([image.path.relative_to(root).as_posix() for image, _ in found]),
        sha256=text([row["sha256"] for _, row in found]),
        split=text([image.split for image, _ in found]),
        subject=text([image.subject for image, _ in found]),
        session=text([image.session for image, _ in found]),
        width=stack("width", (), np.int32),
        height=stack("height", (), np.int32),
        phash=stack("phash", (), np.uint64),
        votes=np.array([image.votes for image, _ in found], np.uint8).reshape(len(found), VOTES),
        crop=Rows([stack("crop", (CROP_PX, CROP_PX), np.uint8)]),
        missed_label=text([image.label for image, _ in missed]),
        missed_source=text([source] * len(missed)),
        missed_path=text([image.path.relative_to(root).as_posix() for image, _ in missed]),
        missed_reason=text([row["skipped"] for _, row in missed]),
        missed_split=text([image.split for image, _ in missed]),
    )


def save_face_set(path: Path, data: FaceSet) -> None:
    """Write a landmark set as `.npz`, atomically; equal sets give equal bytes."""
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name in (*data.row_columns, *_MISSED_COLUMNS):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                values = getattr(data, name)
                if isinstance(values, Rows):
                    values.write(file)
                else:
                    np.lib.format.write_array(file, values, allow_pickle=False)


_TXT_CLASSES = "# classes: "
"""Begins the first line of a `.txt` whose classes are not `EMOTIONS`; `numpy.loadtxt` skips it."""


def save_txt(path: Path, data: FaceSet, classes: Sequence[str] = EMOTIONS) -> None:
    """Write the published format, atomically: a face a line, 1404 coordinates and the index of its class.

    Nine significant digits bring a float32 back to the bit. Other classes than `EMOTIONS` are named in the
    first line.
    """
    index = data.class_index(classes)
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        if tuple(classes) != EMOTIONS:
            file.write(f"{_TXT_CLASSES}{', '.join(classes)}\n")
        line = "%.9g " * (MESH_POINTS * 3) + "%d\n"
        labels = iter(index.tolist())
        for chunk in data.landmarks.first(MESH_POINTS).chunks():
            for face in chunk.reshape(len(chunk), -1):
                file.write(line % (*face.tolist(), next(labels)))


def load_face_set(path: Path, allow_empty: bool = False) -> FaceSet:
    """Return the landmark set in a `.npz` (all columns) or `.txt` (468 points and label) file.

    Raises UserError if the file is missing, is not of the format, or (unless `allow_empty`) holds no face.
    """
    if not path.is_file():
        sets = [relative(found) for found in sorted(DATA.glob("[!.]*.npz"))]
        others = f"there are: {list_names(sets)}; or " if sets else ""
        raise UserError(
            f"no landmark set at {relative(path)}; {others}make one of a folder with a sub-folder for each "
            "class: python scr/extract_landmarks.py --images FOLDER"
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


def _read_npz(path: Path) -> FaceSet:
    if not zipfile.is_zipfile(path):
        raise ValueError("no .npz archive")
    with np.load(path, allow_pickle=False) as archive:
        data = FaceSet(
            **{
                name: Rows([map_member(path, name)]) if name in _STORED_COLUMNS else archive[name]
                for name in (*_ROW_COLUMNS, *_MISSED_COLUMNS)
                if name in archive.files
            }
        )
    # Crops, three times as large, are left: a wrong grey level is no wrong face.
    check_member(path, "landmarks")
    check_columns({name: getattr(data, name) for name in (*_ROW_COLUMNS, *_MISSED_COLUMNS)}, VOTES)
    labels = {*data.label.tolist(), *data.missed_label.tolist()}
    if wrong := sorted(name for name in labels if name != class_name(name) or name_problem(name)):
        raise ValueError(f"labels that are no names of classes: {list_names(wrong)}")
    return data


def _read_txt(path: Path) -> FaceSet:
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
    landmarks = table[:, :-1].reshape(-1, MESH_POINTS, 3)
    check_landmarks(landmarks, (MESH_POINTS,))
    return FaceSet(landmarks, label, source=source)


def prefix_group(path: str) -> str:
    """Return the prefix group of a file name: what stands before its first digit (`ffhq_12.png`: `ffhq_`)."""
    return re.match(r"\D*", Path(path).stem).group()


LEAST_PEOPLE = 6
"""Of a source, to keep each on one side: three sides, and more than one person on the larger ones."""


def find_duplicates(data: FaceSet, max_bits: int = 4, max_shift: float = 0.02) -> np.ndarray:
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

    first_with = {}
    for index, digest in enumerate(data.sha256.tolist()):
        if digest and first_with.setdefault(digest, index) != index:
            parent[root(index)] = root(first_with[digest])
    # Two portraits of one person in one studio are nearly the same picture and still two; the split keeps
    # the faces of a known person on one side anyway.
    hashed = np.flatnonzero((data.phash != 0) & (data.subject == ""))
    pairs, mesh = hashed[near_pairs(data.phash[hashed], max_bits)], data.landmarks.first(MESH_POINTS)
    for start in range(0, len(pairs), CHUNK):
        ones, others = pairs[start : start + CHUNK].T
        shift = np.abs(mesh.read(ones) - mesh.read(others)).reshape(len(ones), -1).mean(axis=1)
        for one, other in zip(ones[shift <= max_shift].tolist(), others[shift <= max_shift].tolist()):
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
        groups = len(np.unique(group[rows]))
        if groups == len(rows):  # scikit-learn's own stratified split, a hundred times faster
            return train_test_split(rows, test_size=part, stratify=label[rows], random_state=seed)[1]
        count = min(max(2, round(1 / part)), groups)
        folds = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
        sides = [rows[side] for _, side in folds.split(rows, label[rows], group[rows])]
        whole = [side for side in sides if len(np.unique(label[side])) == len(np.unique(label[rows]))]
        return (whole or sides)[0]  # with few people, a fold may lack a class

    rare = [f"{count} of {name}" for name, count in Counter(label.tolist()).items() if count < 4]
    if rare:
        raise UserError(f"too few faces to split: {', '.join(rare)}; at least 4 of each class are needed")
    split = np.full(len(label), "train")
    try:
        if test:
            split[part_off(np.arange(len(label)), test)] = "test"
        split[part_off(np.flatnonzero(split == "train"), val)] = "val"
    except ValueError as error:
        counts = ", ".join(f"{count} of {name}" for name, count in Counter(label.tolist()).items())
        # So many folds have one of each class each.
        raise UserError(
            f"too few faces to split: {counts}; with {round(1 / (test or val))} of each class there are "
            "enough: add pictures"
        ) from error
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
    data: FaceSet, seed: int = SEED, test: float = 0.1, val: float = 0.2, duplicate: np.ndarray | None = None
) -> FaceSet:
    """Return the set with every face in `train`, `val` or `test`, source by source.

    A source that has all three keeps them. One that has a held-out part (`val` or `test`) keeps it as `test`
    and gives a part `val` of the rest to validation. Else both are made. Duplicates, and a subject's faces,
    stay on one side; `duplicate` gives the numbers of `find_duplicates` where they are known.
    """
    split, missed_split = np.full(len(data), "train"), np.full(len(data.missed_label), "train")
    duplicate = find_duplicates(data) if duplicate is None else duplicate
    groups = split_groups(_without_few_people(data), duplicate)
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
    split[_leaked(split, duplicate)] = ""
    return replace(data, split=split, missed_split=missed_split).select(split != "")


def _without_few_people(data: FaceSet) -> FaceSet:
    """Return the set without the subjects of sources that have too few for three sides, and say so."""
    subject = data.subject.copy()
    for source in np.unique(data.source):
        rows = data.source == source
        people = set(data.subject[rows].tolist()) - {""}
        if 0 < len(people) < LEAST_PEOPLE:
            note(
                f"{source}: {len(people)} people are too few to keep each on one side of the split"
                f" ({LEAST_PEOPLE} are needed); the figures tell how well it knows these people, not others"
            )
            subject[rows] = ""
    return replace(data, subject=subject)


def _leaked(split: np.ndarray, duplicate: np.ndarray) -> np.ndarray:
    """Return a mask (n,) of faces whose twin, in another source, lies on a side that must stay unseen."""
    rank = np.select([split == "test", split == "val", split == "train"], [2, 1, 0], -1)
    highest = np.full(duplicate.max(initial=0) + 1, -1)
    np.maximum.at(highest, duplicate, rank)
    return (rank >= 0) & (rank < highest[duplicate])


def split_groups(data: FaceSet, duplicate: np.ndarray | None = None) -> np.ndarray:
    """Return a number (n,) for each face: those with the same (picture or person) belong on one side."""
    duplicate = find_duplicates(data) if duplicate is None else duplicate
    person = np.array(
        [f"{source}/{subject}" if subject else "" for source, subject in zip(data.source, data.subject)]
    )
    group = duplicate.copy()
    copies, persons = _rows_by_value(duplicate), _rows_by_value(person)
    for name in sorted(set(person.tolist()) - {""}):
        members = np.concatenate([copies[number] for number in np.unique(duplicate[persons[name]]).tolist()])
        group[members] = group[members].min()
    return group


def _rows_by_value(values: np.ndarray) -> dict:
    """Return for each value in (n,) the rows that hold it."""
    order = np.argsort(values, kind="stable")
    names, first = np.unique(values[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, first[1:])))
