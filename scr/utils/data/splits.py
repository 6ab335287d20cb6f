"""Duplicates, splits and weights of sets of faces."""

import re
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ..config import SEED, UserError, note
from ..faces.features import MESH_POINTS
from .arrays import CHUNK
from .face_set import FaceSet


def prefix_group(path: str) -> str:
    """Return the prefix group of a file name: what stands before its first digit (`ffhq_12.png`: `ffhq_`)."""
    return re.match(r"\D*", Path(path).stem).group()


HASH_BITS = 64
_BLOCKS = 3
"""A hash has so many more blocks than bits may differ: near ones have at least this many in common."""


def near_pairs(hashes: np.ndarray, max_bits: int) -> np.ndarray:
    """Return the pairs (k, 2) of rows, the smaller first, in order, whose hashes (n,) uint64 differ in at
    most `max_bits` bits.

    Only hashes that share blocks are compared (multi-index hashing, Norouzi et al. 2012), so the time is
    hardly more than that of sorting them.
    """
    edges = np.linspace(0, HASH_BITS, max_bits + _BLOCKS + 1).astype(int)
    masks = [sum(1 << bit for bit in range(low, high)) for low, high in zip(edges, edges[1:])]
    found = [np.empty((0, 2), np.int64)]
    for chosen in combinations(masks, _BLOCKS):
        key = hashes & np.uint64(sum(chosen))
        order = np.argsort(key, kind="stable")
        key, step = key[order], 1
        same = np.flatnonzero(key[1:] == key[:-1])
        while len(same):  # pairs of neighbours among equal keys, then of those two apart...
            one, other = order[same], order[same + step]
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= max_bits
            found.append(np.column_stack([one, other])[near])
            step += 1
            same = same[same + step < len(key)]
            same = same[key[same] == key[same + step]]
    return np.unique(np.concatenate(found), axis=0)


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
    pairs = hashed[near_pairs(data.phash[hashed], max_bits)]
    for start in range(0, len(pairs), CHUNK):
        ones, others = pairs[start : start + CHUNK].T
        shift = np.abs(data.landmarks[ones, :MESH_POINTS] - data.landmarks[others, :MESH_POINTS])
        shift = shift.reshape(len(ones), -1).mean(axis=1)
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
    split, missed_split = np.full(len(data), "train"), np.full(len(data.missed), "train")
    duplicate = find_duplicates(data) if duplicate is None else duplicate
    groups = split_groups(_without_few_people(data), duplicate)
    generator = np.random.default_rng(seed)
    for source in np.unique(data.source):
        rows = np.flatnonzero(data.source == source)
        given = data.split[rows]
        missed = data.missed.source == source
        if set(given.tolist()) >= {"train", "val", "test"}:
            split[rows], missed_split[missed] = given, data.missed.split[missed]
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
            missed_split[missed & np.isin(data.missed.split, ("val", "test"))] = "test"
        else:
            split[rows] = make_split(data.label[rows], groups[rows], test=test, val=val, seed=seed)
            missed_split[missed] = generator.choice(
                ("test", "val", "train"), missed.sum(), p=(test, (1 - test) * val, (1 - test) * (1 - val))
            )
    split[_leaked(split, duplicate)] = ""
    return data.with_split(split, missed_split).select(split != "")


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
