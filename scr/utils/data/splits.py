"""Duplicates, splits and weights of sets of faces."""

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..config import SEED, UserError, note
from .arrays import CHUNK
from .face_set import FaceSet


def prefix_group(path: str) -> str:
    """Return the prefix group of a file name: what stands before its first digit (`ffhq_12.png`: `ffhq_`)."""
    return re.match(r"\D*", Path(path).stem).group()


LEAST_PEOPLE = 6
"""Of a source, to keep each on one side: three sides, and more than one person on the larger ones."""


NEAREST = 16
"""Faces that each is compared with, those that look most like it: time and memory grow with the number of
faces, whatever they show."""
MIDDLE_PX, BLOCK_PX = 72, 6
"""Of the crop: its border changes where a picture is cropped, single pixels where it is compressed."""
MOST_APART, MOST_APART_OF_ONE_ENCODING = 0.14, 0.006
"""Distance of two faces' middles, each of mean 0 and norm 1. Half of the copies of pictures are .03 away,
frames that follow one another .009 or more, two people .5 or more (tests/measure/duplicates.py)."""


def find_duplicates(data: FaceSet) -> np.ndarray:
    """Return for each face (n,) the number of the first that shows the same picture, mostly its own.

    The same picture has the same bytes; or another size, format or compression (columns width, height and
    encoding), and nearly the same face. Frames of one camera have all these in common, and two moments may
    look more alike than a picture and its re-encoding: of one encoding only pictures with the same pixels are
    taken for one. Faces are compared with the first of a group, so that no chain of likenesses makes one.
    """
    first, known = np.arange(len(data)), np.flatnonzero(data.sha256 != "")
    _, head, copy = np.unique(data.sha256[known], return_index=True, return_inverse=True)
    first[known] = known[head[copy]]
    if data.crop is not None:
        for one, other in _same_pictures(data, np.unique(first)).tolist():
            if first[one] == one and first[other] == other:
                first[other] = one
    return first[first]


def _same_pictures(data: FaceSet, rows: np.ndarray) -> np.ndarray:
    """Return the pairs (k, 2) of these rows that show the same picture, the smaller first, by the larger."""
    from scipy.fft import dctn
    from scipy.spatial import KDTree

    def is_near(pairs: np.ndarray, apart: np.ndarray) -> np.ndarray:
        one, other = pairs.T
        columns = data.encoding, data.width, data.height
        same_encoding = np.all([column[one] == column[other] for column in columns], axis=0)
        return apart <= np.where(same_encoding, MOST_APART_OF_ONE_ENCODING, MOST_APART)

    low = np.zeros((len(data), 8), np.float32)
    for some in np.split(rows, range(CHUNK, len(rows), CHUNK)):
        low[some] = dctn(_middle(data.crop[some]), axes=(1, 2), norm="ortho")[:, :3, :3].reshape(-1, 9)[:, 1:]
    # The lowest frequencies are never farther apart than the whole. Noise parts equal ones, which the tree
    # can't, and with `eps` it passes over what is hardly nearer.
    points = low[rows] + np.random.default_rng(0).normal(scale=1e-4, size=(len(rows), low.shape[1]))
    near = KDTree(points).query(points, NEAREST, eps=1, distance_upper_bound=2 * MOST_APART, workers=-1)[1]
    number, place = np.nonzero(near < len(rows))
    pairs = np.sort(rows[np.stack([number, near[number, place]], axis=1)], axis=1)
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    pairs = pairs[is_near(pairs, np.linalg.norm(low[pairs[:, 0]] - low[pairs[:, 1]], axis=1))]
    found = [pairs[:0]]
    for some in np.split(pairs, range(CHUNK, len(pairs), CHUNK)):
        one, other = some.T
        apart = np.linalg.norm(_middle(data.crop[one]) - _middle(data.crop[other]), axis=(1, 2))
        found.append(some[is_near(some, apart)])
    pairs = np.concatenate(found)
    return pairs[np.lexsort(pairs.T)]


def _middle(crops: np.ndarray) -> np.ndarray:
    """Return the middles of crops, block by block, (n, 12, 12) of mean 0 and norm 1."""
    border, blocks = (crops.shape[1] - MIDDLE_PX) // 2, MIDDLE_PX // BLOCK_PX
    middle = crops[:, border:-border, border:-border].reshape(-1, blocks, BLOCK_PX, blocks, BLOCK_PX)
    middle = middle.mean(axis=(2, 4), dtype=np.float32)
    middle -= middle.mean(axis=(1, 2), keepdims=True)
    return middle / np.maximum(np.linalg.norm(middle, axis=(1, 2), keepdims=True), 1e-6)


FEWEST = 4
"""Different pictures, or people, of each class that a split takes."""


def make_split(
    label: np.ndarray, group: np.ndarray, test: float = 0.1, val: float = 0.2, seed: int = SEED
) -> np.ndarray:
    """Return `train`, `val` or `test` (n,) for each row: stratified by label, a group never on two sides.

    `test` is a part of all rows, `val` a part of the rest (the published 10% and 20%), of few rows at least
    one of each class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    def part_off(rows: np.ndarray, part: float) -> np.ndarray:
        groups, counts = len(np.unique(group[rows])), Counter(label[rows].tolist())
        if groups == len(rows):  # scikit-learn's own stratified split, a hundred times faster
            size = max(len(counts), math.ceil(part * len(rows)))
            return train_test_split(rows, test_size=size, stratify=label[rows], random_state=seed)[1]
        count = max(2, min(round(1 / part), groups, *counts.values()))
        folds = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
        sides = [rows[side] for _, side in folds.split(rows, label[rows], group[rows])]
        whole = [side for side in sides if len(np.unique(label[side])) == len(np.unique(label[rows]))]
        return (whole or sides)[0]  # with few people, a fold may lack a class

    different = {name: len(np.unique(group[label == name])) for name in np.unique(label).tolist()}
    problem = UserError(
        "too few different pictures or people to split: "
        f"{', '.join(f'{count} of {name}' for name, count in different.items())}; with {FEWEST} of each "
        "class there are enough: add pictures"
    )
    if min(different.values()) < FEWEST:
        raise problem
    split = np.full(len(label), "train")
    try:
        if test:
            split[part_off(np.arange(len(label)), test)] = "test"
        split[part_off(np.flatnonzero(split == "train"), val)] = "val"
    except ValueError as error:
        raise problem from error
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
        rows, missed = np.flatnonzero(data.source == source), data.missed.source == source
        given = data.split[rows]
        held_out = np.isin(given, ("val", "test"))
        if set(given.tolist()) >= {"train", "val", "test"}:
            split[rows], missed_split[missed] = given, data.missed.split[missed]
        elif held_out.any() and (given == "train").any():
            split[rows[held_out]] = "test"
            rows, held_groups = rows[~held_out], groups[rows[held_out]]
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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    duplicate = find_duplicates(data) if duplicate is None else duplicate
    known = np.flatnonzero(data.subject != "")
    people = [f"{data.source[row]}/{data.subject[row]}" for row in known]
    person = len(data) + np.unique(people, return_inverse=True)[1]
    links = coo_array((np.ones(len(known)), (duplicate[known], person)), shape=(2 * len(data),) * 2)
    return connected_components(links, directed=False)[1][duplicate]
