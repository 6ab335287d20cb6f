"""Fine-tuning: the last layer of a pretrained model learns labelled faces, of one person or of a group.

Two things hold it to what it was. While it learns, it is penalised for its distance from the pretrained
weights (L2-SP, Li et al. 2018). Then it is interpolated with them (WiSE-FT, Wortsman et al. 2022), with the
coefficient alpha that cross-validation prefers among those that lose little on other people's faces, the
reference set. The fit is convex: no seed, no learning rate, no number of steps. Interpolated weights of a
last layer give interpolated logits, so all alphas are judged without another fit.

Classes that the pretrained model lacks get a new last layer by the same fit, from weights of zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from ..config import SEED
from ..data.splits import class_source_weights
from ..evaluation.metrics import balanced_accuracy, confidence_threshold, confusions
from ..evaluation.predictions import Predictions, side_by_side
from .networks import PREDICTED_RIGHT, fit_temperature

PULL = 1.0
"""Strength of the penalty. For a group: from .1 to 1 the gain from 600 pictures of RAF-DB, left out of the
pretraining, stays the same to .01, and what is lost on three other sources falls from .02 to nothing. For a
person: any strength from .003 to 30 reads the third take of JAFFE's four women after two (48 of 48)."""
FOLDS = 5
ALPHAS = np.linspace(0, 1, 21)
"""The interpolation coefficients that are tried."""
UNMEASURED_ALPHA = 0.5
"""The largest one where nothing tells what is forgotten: WiSE-FT's own default."""


@dataclass(frozen=True)
class LastLayer:
    """Weights of a last layer: kernel (h, classes) and bias (classes,)."""

    kernel: np.ndarray
    bias: np.ndarray

    @classmethod
    def zeros(cls, hidden: int, classes: int) -> "LastLayer":
        """Return a layer that knows nothing, for classes that a pretrained model lacks."""
        return cls(np.zeros((hidden, classes), np.float32), np.zeros(classes, np.float32))

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Return the logits (n, classes) of what the layer before it gives (n, h)."""
        return hidden @ self.kernel + self.bias

    def towards(self, other: "LastLayer", alpha: float) -> "LastLayer":
        """Return the layer between this one (alpha 0) and another (alpha 1)."""
        return LastLayer(
            self.kernel + alpha * (other.kernel - self.kernel), self.bias + alpha * (other.bias - self.bias)
        )


@dataclass(frozen=True)
class Examples:
    """Faces to learn from: hidden (n, h), label (n,) as class index, source (n,), and group (n,), such as a
    person or a session, whose faces are held out together. Rows are in order of time."""

    hidden: np.ndarray
    label: np.ndarray
    source: np.ndarray
    group: np.ndarray

    def select(self, rows: np.ndarray) -> "Examples":
        """Return the examples that an index array or a mask names."""
        return Examples(self.hidden[rows], self.label[rows], self.source[rows], self.group[rows])


@dataclass(frozen=True)
class Reference:
    """Faces of other people, to measure what is forgotten: hidden (n, h), label (n,); `name`: whose."""

    name: str
    hidden: np.ndarray
    label: np.ndarray

    def balanced_accuracy(self, layer: LastLayer) -> float:
        """Return the balanced accuracy of a last layer on these faces."""
        return balanced_accuracy(self.label, layer.logits(self.hidden))


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned layer, calibrated, its alpha (0: nothing was gained, and the layer is the pretrained one),
    and the confidence from which enough predictions are right; None if held-out faces do not tell."""

    layer: LastLayer
    alpha: float
    threshold: float | None


@dataclass(frozen=True)
class Result:
    """What came of a fine-tuning: the layer, and what it and the one it started from predict for faces held
    out."""

    tuned: FineTuned
    before: Predictions
    after: Predictions
    reference: dict | None
    """name and size of the reference set, if any, and the balanced accuracy on it, before and after"""
    from_zero: bool
    """whether the layer is a new one, for classes that the pretrained model lacks"""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the layer tells apart."""
        return self.after.classes

    @property
    def problem(self) -> str:
        """Why the layer is not worth keeping, or "": cross-validation and the faces held out must show a
        gain over the pretrained one, of a new layer a sure one over guessing."""
        before, after = (one.figures()["all"] for one in (self.before, self.after))
        if not self.from_zero:
            better = self.tuned.alpha > 0 and after["balanced_accuracy"] >= before["balanced_accuracy"]
            return "" if better else "on the faces held out nothing is better than the base model"
        if after["balanced_accuracy_interval"][0] > 1 / len(self.classes):
            return ""
        found = "; ".join(confusions(after["confusion_matrix"], self.classes))
        return (
            f"nothing is surely better than guessing: labels contradict each other, or are too few ({found})"
        )

    def describe(self) -> str:
        """Return as text how the layer does on faces held out, and what it forgets."""
        if self.from_zero:
            return f"{side_by_side([self.after])}\nguessing is right on {1 / len(self.classes):.0%}"
        return f"{side_by_side([self.before, self.after])}\n{self.kept}"

    @property
    def kept(self) -> str:
        """How much of the change is kept, and what is forgotten, as text."""
        part = f"{self.tuned.alpha:.0%}" if self.tuned.alpha else "nothing"
        text = f"{part} of the change is kept"
        if not self.reference:
            return text
        name, faces, before, after = self.reference.values()
        return (
            f"{text}; other faces ({name}, {faces:,}): balanced accuracy {before:.3f} before, {after:.3f} "
            f"after: {before - after:.3f} is forgotten"
        )

    def metrics(self) -> dict:
        """Return the reports by name, as a bundle keeps them."""
        reports = {"base": self.before.figures()["all"], "test": self.after.figures()["all"]}
        return reports | ({"reference": self.reference} if self.reference else {})


def fine_tune(
    start: LastLayer | None,
    examples: Examples,
    classes: Sequence[str],
    reference: Reference | None,
    max_forgetting: float,
    test: np.ndarray | None = None,
    seed: int = SEED,
) -> Result:
    """Fine-tune a last layer, or a new one without `start`, and judge it on faces that it has not seen.

    test: a mask (n,) of the examples that are held out altogether. Without it the layer learns from all, and
    is judged by layers that were fine-tuned in the same way with each fold held out in turn.
    """
    from_zero = start is None
    if start is None:
        start, reference, max_forgetting = LastLayer.zeros(examples.hidden.shape[1], len(classes)), None, 1.0

    def tune(some: Examples) -> FineTuned:
        return fine_tune_layer(start, some, reference, max_forgetting, seed)

    if test is None:
        splits, tuned = make_folds(examples.label, examples.group, seed), tune(examples)
        layers = [tune(examples.select(train)).layer for train, _ in splits]
    else:
        tuned = tune(examples.select(~test))
        splits, layers = [(None, np.flatnonzero(test))], [tuned.layer]
    held_out = examples.select(np.concatenate([rows for _, rows in splits]))
    after = [layer.logits(examples.hidden[rows]) for layer, (_, rows) in zip(layers, splits)]

    def predictions(system: str, logits: np.ndarray) -> Predictions:
        predicted, confidence = logits.argmax(axis=1), softmax(logits, axis=1).max(axis=1)
        about = held_out.source, np.zeros(len(predicted))
        return Predictions(system, tuple(classes), held_out.label, predicted, confidence, *about)

    measured = reference and {
        "name": reference.name,
        "faces": len(reference.label),
        "before": reference.balanced_accuracy(start),
        "after": reference.balanced_accuracy(tuned.layer),
    }
    before = start.logits(held_out.hidden)
    judged = predictions("base", before), predictions("fine-tuned", np.concatenate(after))
    return Result(tuned, *judged, measured, from_zero)


def fine_tune_layer(
    start: LastLayer, examples: Examples, reference: Reference | None, max_forgetting: float, seed: int = SEED
) -> FineTuned:
    """Return the fine-tuned layer, interpolated and calibrated by cross-validation.

    On the reference set it loses at most `max_forgetting` of balanced accuracy. Without a reference set alpha
    is at most `UNMEASURED_ALPHA`, unless any loss is allowed (1).
    """
    folds = make_folds(examples.label, examples.group, seed)
    if not folds:
        return FineTuned(start, 0.0, None)
    tuned = fit_last_layer(start, examples)
    allowed = _allowed_alphas(start, tuned, reference, max_forgetting)
    held_out = np.concatenate([test for _, test in folds])
    label, before = examples.label[held_out], start.logits(examples.hidden[held_out])
    after = np.concatenate(
        [fit_last_layer(start, examples.select(train)).logits(examples.hidden[test]) for train, test in folds]
    )
    weight = class_source_weights(label, np.zeros(len(label)))

    def likelihood(alpha: float) -> float:
        of_label = log_softmax(before + alpha * (after - before), axis=1)[np.arange(len(label)), label]
        return np.average(of_label, weights=weight)

    alpha = float(max(allowed, key=likelihood))
    between = before + alpha * (after - before)
    if alpha == 0 or balanced_accuracy(label, between) < balanced_accuracy(label, before):
        return FineTuned(start, 0.0, None)
    # Never below 1: held-out faces of a few sessions are too like the others to make a model surer.
    temperature = max(1.0, fit_temperature(softmax(between, axis=1), label))
    threshold, given = confidence_threshold(label, softmax(between / temperature, axis=1), PREDICTED_RIGHT)
    layer = start.towards(tuned, alpha)
    layer = LastLayer(layer.kernel / temperature, layer.bias / temperature)
    return FineTuned(layer, alpha, threshold if 0 < given < 1 else None)


def fit_last_layer(start: LastLayer, examples: Examples) -> LastLayer:
    """Return the layer that fits examples best under the penalty.

    Only the classes that the labels name are told from each other; any other is left as it is in `start`, so
    that it is not unlearned.
    """
    from scipy.optimize import minimize

    present, index = np.unique(examples.label, return_inverse=True)
    one_hot = np.eye(len(present))[index]
    weight = class_source_weights(examples.label, examples.source)
    weight = weight / weight.sum()
    hidden = np.append(examples.hidden, np.ones((len(index), 1)), axis=1).astype(np.float64)
    pretrained = np.append(start.kernel, start.bias[None], axis=0)[:, present].astype(np.float64)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        change = flat.reshape(pretrained.shape)
        log_probability = log_softmax(hidden @ (pretrained + change), axis=1)
        value = PULL / 2 * np.square(flat).sum() - weight @ log_probability[np.arange(len(index)), index]
        error = np.exp(log_probability) - one_hot
        return value, (hidden.T @ (weight[:, None] * error) + PULL * change).ravel()

    nothing = np.zeros(pretrained.size)
    change = minimize(loss, nothing, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    kernel, bias = start.kernel.copy(), start.bias.copy()
    kernel[:, present] += change.reshape(pretrained.shape)[:-1]
    bias[present] += change.reshape(pretrained.shape)[-1]
    return LastLayer(kernel, bias)


def _allowed_alphas(
    start: LastLayer, tuned: LastLayer, reference: Reference | None, max_forgetting: float
) -> Sequence[float]:
    if max_forgetting >= 1:
        return ALPHAS
    if reference is None:
        return ALPHAS[ALPHAS <= UNMEASURED_ALPHA]
    least = reference.balanced_accuracy(start) - max_forgetting
    return [alpha for alpha in ALPHAS if reference.balanced_accuracy(start.towards(tuned, alpha)) >= least]


def make_folds(label: np.ndarray, group: np.ndarray, seed: int = SEED) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, test) rows: each group held out in turn, of many groups a fifth; of a single one the
    last third of each class, its rows being in order of time.

    Never neighbouring frames: they are the same moment twice, and make any model look good. A fold whose
    training rows hold one class alone is left out.
    """
    names, index = np.unique(group, return_inverse=True)
    rows = np.arange(len(index))
    if len(names) > 1:
        fold = np.random.default_rng(seed).permutation(len(names))[index] % FOLDS
    else:
        of_class = [rows[label == name] for name in np.unique(label)]
        last = [some[-max(1, len(some) // 3) :] for some in of_class if len(some) > 1]
        fold = np.where(np.isin(rows, np.concatenate(last or [[]])), 0, -1)
    folds = [(rows[fold != number], rows[fold == number]) for number in np.unique(fold[fold >= 0])]
    return [(train, test) for train, test in folds if len(np.unique(label[train])) > 1]
