"""Fine-tuning for a group: a model's last layer learns from a maker's pictures and keeps to what it was.

Two things hold it. While it learns, it is penalised for its distance from the base model's weights (L2-SP,
Li et al. 2018). Then only a share of the change is kept (weight interpolation, WiSE-FT, Wortsman et al.
2022): the one that cross-validation on the maker's pictures prefers among those that lose little elsewhere.
For a last layer that is a mixture of logits, so all shares are judged without another training.
"""

from dataclasses import dataclass

import numpy as np

from ..data.face_set import class_source_weights
from ..evaluation.metrics import evaluate_predictions, with_missed
from .ensemble import calibrate, softmax
from .personal import UNMEASURED_SHARE

PULL = 1.0
"""Strength of the penalty. From .1 to 1 the gain from 600 pictures of RAF-DB, left out of the base, stays the
same to .01, and what is lost on three other sources falls from .02 to nothing (models/README.md)."""
FOLDS = 5
SHARES = np.linspace(0, 1, 21)
"""The shares of the change that are tried."""


@dataclass(frozen=True)
class LastLayer:
    """Weights of a last layer: kernel (h, classes) and bias (classes,)."""

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Return the logits (n, classes) of what the layer before it gives (n, h)."""
        return hidden @ self.kernel + self.bias

    def towards(self, other: "LastLayer", share: float) -> "LastLayer":
        """Return the layer that has gone a share of the way to another."""
        return LastLayer(
            self.kernel + share * (other.kernel - self.kernel), self.bias + share * (other.bias - self.bias)
        )


def fit_last_layer(base: LastLayer, hidden: np.ndarray, label: np.ndarray, weight: np.ndarray) -> LastLayer:
    """Return the layer that fits hidden (n, h), label (n,) and weight (n,) best under the penalty.

    The problem is convex: no seed, no rate, no number of steps. Only the classes that the labels name are
    told from each other; any other is left as it is in `base`, so that it is not unlearned.
    """
    from scipy.optimize import minimize

    present, index = np.unique(label, return_inverse=True)
    one_hot = np.eye(len(present))[index]
    weight = weight / weight.sum()
    hidden = np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1).astype(np.float64)
    start = np.concatenate([base.kernel, base.bias[None]])[:, present].astype(np.float64)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        change = flat.reshape(start.shape)
        logits = hidden @ (start + change)
        logits -= logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(axis=1))
        value = weight @ (log_sum - logits[np.arange(len(index)), index]) + PULL / 2 * np.square(flat).sum()
        error = np.exp(logits - log_sum[:, None]) - one_hot
        return value, (hidden.T @ (weight[:, None] * error) + PULL * change).ravel()

    found = minimize(loss, np.zeros(start.size), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    kernel, bias = base.kernel.copy(), base.bias.copy()
    kernel[:, present] += found.reshape(start.shape)[:-1]
    bias[present] += found.reshape(start.shape)[-1]
    return LastLayer(kernel, bias)


@dataclass(frozen=True)
class Elsewhere:
    """Faces that the fine-tuning is not for: hidden (n, h), label (n,), and those of missed pictures (m,)."""

    hidden: np.ndarray
    label: np.ndarray
    missed: np.ndarray
    classes: tuple[str, ...]

    def report(self, layer: LastLayer) -> dict:
        """Return the report of a last layer on these faces."""
        answers = with_missed(self.label, layer.logits(self.hidden), self.missed)
        return evaluate_predictions(*answers, self.classes)


@dataclass(frozen=True)
class FineTuned:
    """What came of it: the layer, calibrated, the share of the change in it, the confidence to answer from.

    before, after: balanced accuracy in cross-validation; share 0 if nothing was gained.
    """

    layer: LastLayer
    share: float
    threshold: float
    before: float
    after: float


def fine_tune_layer(
    base: LastLayer,
    hidden: np.ndarray,
    label: np.ndarray,
    source: np.ndarray,
    fold: np.ndarray,
    elsewhere: Elsewhere | None,
    max_forgetting: float,
) -> FineTuned:
    """Return the fine-tuned layer of hidden (n, h), label and source (n,); fold (n,) holds out rows in turn.

    Elsewhere it loses at most `max_forgetting` of the base's balanced accuracy; where that can't be measured,
    and unless it may be all (1), the share is at most `UNMEASURED_SHARE`.
    """
    tuned = fit_last_layer(base, hidden, label, class_source_weights(label, source))
    allowed = _allowed_shares(base, tuned, elsewhere, max_forgetting)
    logits, changed = base.logits(hidden), out_of_fold(base, hidden, label, source, fold)
    weight = class_source_weights(label, np.zeros(len(label)))

    def likelihood(share: float) -> float:
        answers = softmax(logits + share * (changed - logits))
        return np.average(np.log(answers[np.arange(len(label)), label] + 1e-7), weights=weight)

    share = float(max(allowed, key=likelihood))
    before, after = (_balanced_accuracy(label, logits + kept * (changed - logits)) for kept in (0, share))
    if after <= before:
        return FineTuned(base, 0.0, 0.0, before, before)
    temperature, threshold = calibrate(softmax(logits + share * (changed - logits)), label)
    layer = base.towards(tuned, share)
    layer = LastLayer(layer.kernel / temperature, layer.bias / temperature)
    return FineTuned(layer, share, threshold, before, after)


def _allowed_shares(
    base: LastLayer, tuned: LastLayer, elsewhere: Elsewhere | None, max_forgetting: float
) -> list[float]:
    """Return the shares of the change that lose no more elsewhere than they may."""
    if max_forgetting >= 1:
        return list(SHARES)
    if elsewhere is None:
        return [share for share in SHARES if share <= UNMEASURED_SHARE]
    before = elsewhere.report(base)["balanced_accuracy"]
    after = [elsewhere.report(base.towards(tuned, share))["balanced_accuracy"] for share in SHARES]
    return [share for share, value in zip(SHARES, after) if before - value <= max_forgetting]


def out_of_fold(
    base: LastLayer, hidden: np.ndarray, label: np.ndarray, source: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Return the logits (n, classes) of each row by a layer that was fitted on the other folds."""
    logits = base.logits(hidden)
    for number in np.unique(fold):
        rows = fold != number
        weight = class_source_weights(label[rows], source[rows])
        logits[~rows] = fit_last_layer(base, hidden[rows], label[rows], weight).logits(hidden[~rows])
    return logits


def make_folds(group: np.ndarray, seed: int) -> np.ndarray:
    """Return a fold (n,) for each row; rows of one group (n,), a person or copies of a picture, share it."""
    _, index = np.unique(group, return_inverse=True)
    return np.random.default_rng(seed).permutation(index.max() + 1)[index] % FOLDS


def _balanced_accuracy(label: np.ndarray, logits: np.ndarray) -> float:
    classes = [str(index) for index in range(logits.shape[1])]
    return evaluate_predictions(label, logits.argmax(axis=1), classes)["balanced_accuracy"]
