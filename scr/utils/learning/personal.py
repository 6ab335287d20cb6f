"""Ways to a personal network: trained, pulled back to what they may forget, compared on what was held out, and chosen.

Stands on `training`; `train_personal.py` is its script.
"""

from dataclasses import dataclass

import numpy as np

from utils.config import EMOTIONS
from utils.data.dataset import LandmarkSet, class_source_weights
from utils.faces.features import own_offset
from utils.learning import networks
from utils.learning.metrics import evaluate_predictions, with_missed


@dataclass(frozen=True)
class Method:
    """A way to get a personal model."""

    title: str
    own_neutral: bool = False  # faces are read against the person's own neutral face
    from_scratch: bool = False
    trainable_layers: int | None = None  # the last ones; None: all
    learning_rate: float = 1e-3

    @property
    def unchanged(self) -> bool:
        """Tell whether the base network stays as it is."""
        return self.trainable_layers == 0


METHODS = {  # of the shipped network two layers learn: there `last` and `all` differ in their rate alone
    "base": Method("base model, as it is", trainable_layers=0),
    "neutral": Method("base model, your own neutral face", own_neutral=True, trainable_layers=0),
    "head": Method("fine-tuned: last layer", trainable_layers=1),
    "last": Method("fine-tuned: last two layers", trainable_layers=2, learning_rate=3e-4),
    "all": Method("fine-tuned: all layers, small rate", learning_rate=1e-4),
    "scratch": Method("from scratch", from_scratch=True),
}
PICKED, PICKED_TITLE = "picked", "to expect: chosen by inner validation"
SHARES = 20
"""Steps in which a network is pulled back to the base model."""
UNMEASURED_SHARE = 0.5
"""How far a network goes from the base model where nothing tells what it forgets: WiSE-FT's own default."""


def make_folds(label: np.ndarray, session: np.ndarray) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    """Return (train, test) index pairs and what is held out: each session in turn or, with one session, its last third.

    Never neighbouring frames: they are the same moment twice, and make any model look good. Rows are in order of time.
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
    """Faces of other people, x (n, d) standardised features: what is forgotten about them, against the base network."""

    def __init__(self, x: np.ndarray, data: LandmarkSet, base_network):
        self.x, self.data = x, data
        self.base = self.report(base_network)

    def report(self, network) -> dict:
        """Return a network's report on these faces."""
        probabilities = network(self.x, training=False).numpy()
        return evaluate_predictions(
            *with_missed(self.data.class_index(), probabilities, self.data.missed_index()), EMOTIONS
        )

    def forgotten(self, report: dict) -> float:
        """Return the balanced accuracy that a report lacks against the base model's."""
        return self.base["balanced_accuracy"] - report["balanced_accuracy"]


@dataclass(frozen=True)
class Outcome:
    """A trained network, its probabilities (n, classes) for all samples, the share of its change kept, its report on others."""

    network: object
    probabilities: np.ndarray
    share: float
    others: dict | None


class Trial:
    """Trains each method on some rows and asks it about others; x (n, d) standardised features, label and block (n,).

    neutral: the base model's mean neutral face (d,), standardised; None if it knows none, and the row with one's own is left out.
    """

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
    ):
        self.network, self.x, self.label, self.block, self.steps = network, x, label, block, steps
        self.others, self.max_forgetting, self.neutral = others, max_forgetting, neutral
        self.methods = {
            name: method for name, method in METHODS.items() if neutral is not None or not method.own_neutral
        }

    def run(self, folds: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict]:
        """Return the report of each method on the held-out samples.

        The row `picked` chooses its method for each fold by validation inside the fold's own training rows: what one can
        expect of the choice, without a look at the test.
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
        """Return the method that does best on inner folds; the base model where there is nothing to judge by."""
        return (
            self.best(
                {
                    name: self.compare(name, folds, [outcomes[name, train.tobytes()] for train, _ in folds])
                    for name in self.methods
                }
            )
            if folds
            else "base"
        )

    def may_pick(self, name: str) -> bool:
        """Tell whether a method may be chosen: from scratch, nothing bounds what it forgets."""
        return not METHODS[name].from_scratch or self.max_forgetting >= 1

    def best(self, reports: dict[str, dict]) -> str:
        """Return the best method: of equals the base model, else the one that gives the labels the greatest likelihood."""
        return max(
            filter(self.may_pick, self.methods),
            key=lambda name: (
                reports[name]["balanced_accuracy"],
                name == "base",
                reports[name]["log_likelihood"],
            ),
        )

    def fit(self, method: Method, rows: np.ndarray) -> Outcome:
        """Return what a copy of the network, trained by a method on some rows, has become."""
        tuned = networks.copy_network(self.network, reset=method.from_scratch)
        kept = 1.0
        if not method.unchanged:
            networks.freeze_early_layers(tuned, method.trainable_layers)
            label = self.label[rows]
            weight = class_source_weights(label, np.zeros(len(rows)))
            networks.fine_tune(tuned, (self.x[rows], label, weight), method.learning_rate, self.steps)
            if (
                not method.from_scratch
            ):  # weights that did not grow from the base model's can't be mixed with them
                kept = self.pull_back(tuned)
        x = self.x - self.offset(rows) if method.own_neutral else self.x
        others = self.others and (self.others.base if method.unchanged else self.others.report(tuned))
        return Outcome(tuned, tuned(x, training=False).numpy(), kept, others)

    def offset(self, rows: np.ndarray) -> np.ndarray:
        """Return what the neutral faces among some rows take off the person's features, (d,); zeros if there are none."""
        neutral = rows[self.label[rows] == EMOTIONS.index("neutral")]
        return (
            own_offset(self.x[neutral], {"neutral": self.neutral})
            if len(neutral)
            else np.zeros_like(self.neutral)
        )

    def pull_back(self, tuned) -> float:
        """Mix weights with the base model's until no more is forgotten than allowed; return the share of the change kept.

        WiSE-FT (Wortsman et al. 2022). The share that is returned was measured, so the bound holds on the faces of `others`
        even where forgetting does not grow with the share, as bisection supposes.
        """
        base, changed = self.network.get_weights(), tuned.get_weights()

        def mix(kept: float) -> None:
            tuned.set_weights([(1 - kept) * old + kept * new for old, new in zip(base, changed)])

        if self.others is None:
            kept = 1.0 if self.max_forgetting >= 1 else UNMEASURED_SHARE
            mix(kept)
            return kept
        if self.others.forgotten(self.others.report(tuned)) <= self.max_forgetting:
            return 1.0
        low, high = 0, SHARES
        while high - low > 1:
            middle = (low + high) // 2
            mix(middle / SHARES)
            if self.others.forgotten(self.others.report(tuned)) <= self.max_forgetting:
                low = middle
            else:
                high = middle
        mix(low / SHARES)
        return low / SHARES

    def compare(self, name: str, folds: list[tuple[np.ndarray, np.ndarray]], outcomes: list[Outcome]) -> dict:
        """Return the report over all held-out samples, with the balanced accuracy, share and forgetting of each fold."""
        tests = [
            (self.label[test], outcome.probabilities[test]) for (_, test), outcome in zip(folds, outcomes)
        ]
        label, probabilities = (np.concatenate(part) for part in zip(*tests))
        report = evaluate_predictions(label, probabilities.argmax(axis=1), EMOTIONS)
        report |= {
            "title": METHODS[name].title if name in METHODS else PICKED_TITLE,
            "shares": [one.share for one in outcomes],
            "unchanged": name in METHODS and METHODS[name].unchanged,
            "log_likelihood": float(np.log(probabilities[np.arange(len(label)), label] + 1e-7).mean()),
            "folds": [
                evaluate_predictions(one, answers.argmax(axis=1), EMOTIONS)["balanced_accuracy"]
                for one, answers in tests
            ],
        }
        if self.others:
            report["others"] = [one.others["balanced_accuracy"] for one in outcomes]
            report["forgotten"] = [self.others.forgotten(one.others) for one in outcomes]
        return report
