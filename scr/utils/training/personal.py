"""Ways to a personal network: trained, interpolated with the base network so that little is forgotten,
compared, chosen.

Stands on `training`; `train_personal.py` is its script.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..config import EMOTIONS
from ..data.face_set import FaceSet, class_source_weights
from ..evaluation.metrics import evaluate_predictions, with_missed
from ..faces.features import neutral_offset
from . import networks


@dataclass(frozen=True)
class Method:
    """A way to get a personal model."""

    title: str
    neutral_baseline: bool = False  # features less the person's neutral baseline
    from_scratch: bool = False
    trainable_layers: int | None = None  # the last ones; None: all
    learning_rate: float = 1e-3

    @property
    def unchanged(self) -> bool:
        """Tell whether the base network stays as it is."""
        return self.trainable_layers == 0


METHODS = {  # of the shipped network two layers learn: there `last` and `all` differ in their rate alone
    "base": Method("base model, as it is", trainable_layers=0),
    "neutral": Method("base model, your neutral baseline", neutral_baseline=True, trainable_layers=0),
    "head": Method("fine-tuned: last layer", trainable_layers=1),
    "last": Method("fine-tuned: last two layers", trainable_layers=2, learning_rate=3e-4),
    "all": Method("fine-tuned: all layers, small rate", learning_rate=1e-4),
    "scratch": Method("from scratch", from_scratch=True),
}
PICKED, PICKED_TITLE = "picked", "to expect: chosen by inner validation"
SHARES = 20
"""Steps of the interpolation between the base model and the fine-tuned one."""
UNMEASURED_SHARE = 0.5
"""Share of the change that is kept where nothing tells what is forgotten: WiSE-FT's own default."""


def make_folds(label: np.ndarray, session: np.ndarray) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    """Return (train, test) index pairs and what is held out: each session in turn or, with one session,
    its last third.

    Never neighbouring frames: they are the same moment twice, and make any model look good. Rows are in
    order of time.
    """
    names = sorted(set(session.tolist()))
    if len(names) > 1:
        folds = [(np.flatnonzero(session != name), np.flatnonzero(session == name)) for name in names]
        held_out = "each session in turn"
    else:
        of_class = [np.flatnonzero(label == index) for index in np.unique(label)]
        last = np.concatenate(
            [np.empty(0, int), *(rows[-max(1, len(rows) // 3) :] for rows in of_class if len(rows) > 1)]
        )
        folds = [(np.setdiff1d(np.arange(len(label)), last), last)]
        held_out = "the last third of each class in time (record a second session for a better test)"
    return [
        (train, test) for train, test in folds if len(np.unique(label[train])) > 1 and len(test)
    ], held_out


class Others:
    """Faces of other people, x (n, d) standardised features: what is forgotten about them, against the
    base network."""

    def __init__(self, x: np.ndarray, data: FaceSet, base_network, classes: Sequence[str] = EMOTIONS):
        self.x, self.data, self.classes = x, data, classes
        self.base = self.report(base_network)

    def report(self, network) -> dict:
        """Return a network's report on these faces."""
        probabilities = network(self.x, training=False).numpy()
        return evaluate_predictions(
            *with_missed(
                self.data.class_index(self.classes), probabilities, self.data.missed_index(self.classes)
            ),
            self.classes,
        )

    def forgotten(self, report: dict) -> float:
        """Return the balanced accuracy that a report lacks against the base model's."""
        return self.base["balanced_accuracy"] - report["balanced_accuracy"]


@dataclass(frozen=True)
class Outcome:
    """A trained network, its probabilities (n, classes) for all samples, the share of its change kept,
    its report on others."""

    network: object
    probabilities: np.ndarray
    share: float
    others: dict | None


class Trial:
    """Trains each method on some rows and asks it about others; x (n, d) standardised features, label and
    block (n,).

    neutral: the base model's mean neutral face (d,), standardised; None if it knows none, and the row
    with one's own is left out.
    """

    first_of_equals = True
    """whether the first way, which changes nothing, is chosen where others are no better"""

    def __init__(
        self,
        network,
        x: np.ndarray,
        label: np.ndarray,
        block: np.ndarray,
        steps: int,
        others: Others | None,
        max_forgetting: float,
        neutral: np.ndarray | None = None,
        classes: Sequence[str] = EMOTIONS,
    ):
        self.classes = tuple(classes)
        self.network, self.x, self.label, self.block, self.steps = network, x, label, block, steps
        self.others, self.max_forgetting, self.neutral = others, max_forgetting, neutral
        self._tuners: dict[Method, networks.Tuner] = {}
        self.methods = {
            name: method
            for name, method in METHODS.items()
            if neutral is not None or not method.neutral_baseline
        }

    def run(self, folds: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict]:
        """Return the report of each method on the held-out samples.

        The row `picked` chooses its method for each fold by validation inside the fold's own training
        rows: what one can expect of the choice, the test untouched.
        """
        from tqdm import tqdm

        inner = [
            [
                (train[rows], train[asked])
                for rows, asked in make_folds(self.label[train], self.block[train])[0]
            ]
            for train, _ in folds
        ]
        # Two folds may share an inner training part: it is trained on once.
        parts = {
            train.tobytes(): train for train, _ in (*folds, *(fold for group in inner for fold in group))
        }
        outcomes = {}
        with tqdm(total=len(parts) * len(self.methods), unit="fit", desc="comparing") as bar:
            for key, train in parts.items():
                for name, method in self.methods.items():
                    outcomes[name, key] = self.fit(method, train)
                    bar.update()
        picks = [self.pick(group, outcomes) for group in inner]
        return {
            name: self.compare(
                name,
                folds,
                [
                    outcomes[picks[number] if name == PICKED else name, train.tobytes()]
                    for number, (train, _) in enumerate(folds)
                ],
            )
            for name in (*self.methods, PICKED)
        }

    def pick(self, folds: list[tuple[np.ndarray, np.ndarray]], outcomes: dict) -> str:
        """Return the method that does best on inner folds; the base model where there is nothing to judge
        by."""
        return (
            self.best(
                {
                    name: self.compare(name, folds, [outcomes[name, train.tobytes()] for train, _ in folds])
                    for name in self.methods
                }
            )
            if folds
            else self.first
        )

    @property
    def first(self) -> str:
        """The method that is chosen where nothing speaks for another: the one with the least change."""
        return next(iter(self.methods))

    def may_pick(self, name: str) -> bool:
        """Tell whether a method may be chosen: from scratch, nothing bounds what it forgets."""
        return not self.methods[name].from_scratch or self.max_forgetting >= 1

    def best(self, reports: dict[str, dict]) -> str:
        """Return the best method: of equals the first, the base model, if `first_of_equals`, else the one
        that gives the labels the greatest likelihood."""
        return max(
            filter(self.may_pick, self.methods),
            key=lambda name: (
                reports[name]["balanced_accuracy"],
                self.first_of_equals and name == self.first,
                reports[name]["log_likelihood"],
            ),
        )

    def fit(self, method: Method, rows: np.ndarray) -> Outcome:
        """Return what a copy of the network, trained by a method on some rows, has become."""
        tuned = networks.copy_network(self.network, reset=method.from_scratch)
        x = self.x - self.offset(rows) if method.neutral_baseline else self.x
        if method.unchanged:
            kept, others = 1.0, self.others and self.others.base
        else:
            label = self.label[rows]
            weight = class_source_weights(label, np.zeros(len(rows)))
            self.tuner(method).fit(tuned, (self.x[rows], label, weight), self.steps)
            # Weights that did not grow from the base model's can't be mixed with them.
            kept, others = (
                (1.0, self.others and self.others.report(tuned))
                if method.from_scratch
                else self.interpolate(tuned)
            )
        return Outcome(tuned, tuned(x, training=False).numpy(), kept, others)

    def tuner(self, method: Method) -> networks.Tuner:
        """Return what trains by a method; made once, for all rows."""
        if method not in self._tuners:
            self._tuners[method] = networks.Tuner(self.network, method.trainable_layers, method.learning_rate)
        return self._tuners[method]

    def offset(self, rows: np.ndarray) -> np.ndarray:
        """Return what the neutral faces among some rows take off the person's features, (d,); zeros if
        there are none."""
        offset, features = np.zeros(self.x.shape[1], np.float32), len(self.neutral)
        neutral = rows[self.label[rows] == self.classes.index("neutral")]
        if len(neutral):  # of the features alone: of an embedding no mean neutral face is known
            offset[:features] = neutral_offset(self.x[neutral, :features], {"neutral": self.neutral})
        return offset

    def interpolate(self, tuned) -> tuple[float, dict | None]:
        """Mix weights with the base model's until no more is forgotten than allowed.

        Weight interpolation as in WiSE-FT (Wortsman et al. 2022). Returns the share of the change that is
        kept and the report on `others` at that share: it was measured, so the bound holds on these faces
        even where forgetting does not grow with the share, as bisection supposes.
        """
        base, changed = self.network.get_weights(), tuned.get_weights()

        def mix(kept: float) -> None:
            tuned.set_weights([(1 - kept) * old + kept * new for old, new in zip(base, changed)])

        if self.others is None:
            kept = 1.0 if self.max_forgetting >= 1 else UNMEASURED_SHARE
            mix(kept)
            return kept, None
        report = self.others.report(tuned)
        if self.others.forgotten(report) <= self.max_forgetting:
            return 1.0, report
        low, high, best = 0, SHARES, self.others.base
        while high - low > 1:
            middle = (low + high) // 2
            mix(middle / SHARES)
            report = self.others.report(tuned)
            if self.others.forgotten(report) <= self.max_forgetting:
                low, best = middle, report
            else:
                high = middle
        mix(low / SHARES)
        return low / SHARES, best

    def compare(self, name: str, folds: list[tuple[np.ndarray, np.ndarray]], outcomes: list[Outcome]) -> dict:
        """Return the report over all held-out samples, with the balanced accuracy, share and forgetting
        of each fold."""
        tests = [
            (self.label[test], outcome.probabilities[test]) for (_, test), outcome in zip(folds, outcomes)
        ]
        label, probabilities = (np.concatenate(part) for part in zip(*tests))
        report = evaluate_predictions(label, probabilities.argmax(axis=1), self.classes)
        report |= {
            "title": self.methods[name].title if name in self.methods else PICKED_TITLE,
            "shares": [one.share for one in outcomes],
            "unchanged": name in self.methods and self.methods[name].unchanged,
            "log_likelihood": float(np.log(probabilities[np.arange(len(label)), label] + 1e-7).mean()),
            "folds": [
                evaluate_predictions(one, answers.argmax(axis=1), self.classes)["balanced_accuracy"]
                for one, answers in tests
            ],
        }
        if self.others:
            report["others"] = [one.others["balanced_accuracy"] for one in outcomes]
            report["forgotten"] = [self.others.forgotten(one.others) for one in outcomes]
        return report
