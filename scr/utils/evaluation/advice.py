"""Which pictures would help a model most, by simple rules from its set and its test."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ..data.audit import COPIES, SOURCE_WARNING, guess_without_face
from ..data.classes import list_names
from ..data.face_set import FaceSet
from ..data.splits import LEAST_PEOPLE
from .predictions import Predictions

ENOUGH, GOOD_RECALL = 200, 0.9
"""Pictures of a class to learn from, and its recall, from which on more are not what is wanted first."""
TESTED = 30
"""Test pictures of a class under which its 95% interval is a third of the scale wide."""
MANY = 0.05
"""Share of the pictures that are copies, or without a face, from which it is worth a word."""
ONE_LIGHT = 25.0
"""Standard deviation, in grey levels, of how much brighter faces are on the left. Four studio sets have 11 to
22, JAFFE 30, RAF-DB's pictures from the web 36."""
LIGHT_FACES = 500
"""Faces that this is measured on, evenly picked."""


def advise(data: FaceSet, left_out: Counter, test: Predictions) -> list[str]:
    """Return what would help most, in sentences, the most helpful first.

    data: split; left_out: number of pictures by the reason why nothing was learned from them; test: what the
    trained model predicts for the test part.
    """
    report, learned = test.figures()["all"], data.select(data.split != "test")
    return [*_on_classes(report, learned, test.classes), *_on_origin(learned), *_on_losses(data, left_out)]


def _on_classes(report: dict, learned: FaceSet, classes: tuple[str, ...]) -> Iterator[str]:
    recall, counts = report["recall"], Counter(learned.label.tolist())
    rows = dict(zip(classes, report["confusion_matrix"]))
    weakest = min(recall, key=lambda name: recall[name][0])
    if recall[weakest][0] < GOOD_RECALL:
        others = {name: count for name, count in zip(classes, rows[weakest]) if name != weakest}
        yield (
            f"More pictures of {weakest}: {recall[weakest][0]:.0%} of them are read right, the fewest of all "
            f"classes; above all such as differ plainly from {max(others, key=others.get)}."
        )
    least = max(ENOUGH, max(counts.values()) / 2)
    if few := [f"{name} ({counts[name]:,})" for name in recall if counts[name] < least]:
        yield f"More pictures to learn from, of {_names(few, recall)}: {ENOUGH}, and as many as of others."
    if rough := [name for name in recall if sum(rows[name]) < TESTED]:
        yield (
            f"A larger test: fewer than {TESTED} pictures of {_names(rough, recall)} give wide intervals; "
            "--test-images takes a folder of test pictures."
        )


def _names(some: Sequence[str], everything: Collection[str]) -> str:
    return list_names(some) if len(some) < len(everything) else "each class"


def _on_origin(learned: FaceSet) -> Iterator[str]:
    people, chance = set(learned.subject.tolist()) - {""}, 1 / len(set(learned.label.tolist()))
    if 0 < len(people) < LEAST_PEOPLE:
        yield f"Pictures of other people: all show {len(people)}, the same in training and test."
    if not people:
        yield (
            "Where several pictures show one person, say so, by a folder for each person above those of the "
            "classes or by --subject-pattern: else the test shows people from the training, and flatters."
        )
    noise = 2 * math.sqrt(chance * (1 - chance) / len(learned))
    guessed = guess_without_face(learned)
    if told := [name for name, score in guessed.items() if score >= chance + max(SOURCE_WARNING, noise)]:
        yield (
            f"Pictures of all classes from the same places and cameras: {' and '.join(told)} alone tells the "
            "class more often than chance, and the model may have learned that."
        )
    if learned.crop is not None:
        crops = learned.crop[:: -(-len(learned) // LIGHT_FACES)].astype(np.float32)
        left, _, right = np.array_split(crops, 3, axis=2)
        if (left.mean(axis=(1, 2)) - right.mean(axis=(1, 2))).std() < ONE_LIGHT:
            yield "Pictures in other light: it falls nearly the same way on all of these."


def _on_losses(data: FaceSet, left_out: Counter) -> Iterator[str]:
    whole = len(data) + left_out.total()
    if (copies := left_out[COPIES]) > MANY * whole:
        yield f"Other moments, not copies: {copies:,} of {whole:,} pictures were there already."
    if (missed := left_out["no face"]) > MANY * whole:
        yield f"Larger, upright, well lit faces: on {missed:,} of {whole:,} pictures none was found."
