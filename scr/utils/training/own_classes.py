"""Ways to a personal network for classes that the base model lacks: a new last layer on its features."""

import numpy as np

from ..data.face_set import class_source_weights
from ..evaluation.metrics import answer_threshold
from . import networks
from .landmark_network import ANSWERED_RIGHT
from .personal import Method, Outcome, Trial

OWN_METHODS = {
    "nearest": Method("nearest mean face", trainable_layers=0),
    "head": Method("new last layer", trainable_layers=1),
    "last": Method("new last layer, last two trained", trainable_layers=2, learning_rate=3e-4),
    "scratch": Method("from scratch", from_scratch=True),
}


class OwnTrial(Trial):
    """A trial of classes that the base model lacks; of these it can forget nothing, so nothing is measured.

    network: the base network with a new last layer; the rest as of `Trial`. No way is the base model, so of
    equals the likeliest is chosen: the nearest mean face, as good on frames like those recorded, reads a
    smile with closed lips by its likeness to a smile with open ones.
    """

    first_of_equals = False

    def __init__(self, network, x: np.ndarray, label: np.ndarray, block: np.ndarray, steps: int, classes):
        super().__init__(network, x, label, block, steps, None, 1.0, None, classes)
        self.methods = OWN_METHODS

    def fit(self, method: Method, rows: np.ndarray) -> Outcome:
        """Return what a copy of the network, trained by a method on some rows, has become."""
        tuned = networks.copy_network(self.network, reset=method.from_scratch)
        if method.unchanged:
            networks.set_nearest_mean(tuned, self.x[rows], self.label[rows])
        else:
            weight = class_source_weights(self.label[rows], np.zeros(len(rows)))
            self.tuner(method).fit(tuned, (self.x[rows], self.label[rows], weight), self.steps)
        return Outcome(tuned, tuned(self.x, training=False).numpy(), 1.0, None)

    def compare(self, name: str, folds: list, outcomes: list[Outcome]) -> dict:
        """Return the report of `Trial.compare`, and the confidence from which enough answers are right."""
        label = np.concatenate([self.label[test] for _, test in folds])
        answers = np.concatenate([one.probabilities[test] for (_, test), one in zip(folds, outcomes)])
        threshold, answered = answer_threshold(label, answers, ANSWERED_RIGHT)
        return super().compare(name, folds, outcomes) | {"threshold": threshold if answered else 0.0}


def beats_chance(report: dict, classes: int) -> bool:
    """Tell whether a report's balanced accuracy lies above that of guessing, with its 95% interval."""
    return report["balanced_accuracy_interval"][0] > 1 / classes


def confusions(report: dict, classes, most: int = 3) -> list[str]:
    """Return the largest confusions of a report as text, `wink is taken for kiss (7 of 20)`."""
    matrix = np.array(report["confusion_matrix"])[:, : len(classes)]
    pairs = [
        (matrix[row, column] / matrix[row].sum(), row, column)
        for row in range(len(classes))
        for column in range(len(classes))
        if row != column and matrix[row, column]
    ]
    return [
        f"{classes[row]} is taken for {classes[column]} ({matrix[row, column]} of {matrix[row].sum()})"
        for _, row, column in sorted(pairs, reverse=True)[:most]
    ]
