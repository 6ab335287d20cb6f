"""Your recordings -> your own model: fine-tunes the general one and shows, on a held-out session, what it gains.

    python scr/train_personal.py --subject ann
    python scr/main.py --model ann

The base model is never touched: yours goes to models/personal/SUBJECT. If nothing beats the base model, that is said.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.config import (EMOTIONS, MODELS, PERSONAL_DATA, PERSONAL_MODELS, SEED, UserError, make_parser, positive_int,
                          relative, run_script)
from utils.dataset import class_source_weights
from utils.features import compute_features
from utils.metrics import evaluate_predictions
from utils.recordings import load_subject


@dataclass(frozen=True)
class Method:
    """A way to get a personal network; of equals the first in `METHODS` is taken, the one that changes least."""

    title: str
    from_scratch: bool = False
    trainable_layers: int | None = None  # the last ones; None: all
    learning_rate: float = 1e-3


METHODS = {
    "base": Method("base model, as it is", trainable_layers=0),
    "head": Method("fine-tuned: last layer", trainable_layers=1),
    "last": Method("fine-tuned: last two layers", trainable_layers=2, learning_rate=3e-4),
    "all": Method("fine-tuned: all layers, small rate", learning_rate=1e-4),
    "scratch": Method("from scratch", from_scratch=True),
}
PICKED = "picked"
FEW = 10
"""Samples of an expression under which the user is told that the figures say little."""
NOT_ASKED = -2


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--subject", required=True, metavar="NAME", help="whose recordings (data/personal/NAME)")
    parser.add_argument("--base", type=Path, default=MODELS, metavar="DIR", help="bundle to start from")
    parser.add_argument("--data", type=Path, default=PERSONAL_DATA, metavar="DIR", help="folder of recordings")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the model (default: models/personal/SUBJECT)")
    parser.add_argument("--steps", type=positive_int, default=150, help="training steps of each method")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of weights and order")
    return parser


def main(args):
    output = args.output or PERSONAL_MODELS / args.subject
    if output.resolve() == args.base.resolve():
        raise UserError(f"{relative(output)} holds the base model, which is never overwritten; choose another --output")
    samples, dropped = load_subject(args.subject, args.data)
    if dropped:
        print(f"{dropped} damaged lines in the recordings were dropped; all others are used", file=sys.stderr)
    landmarks, blendshapes = (np.stack([getattr(sample, name) for sample in samples]) for name in ("landmarks", "blendshapes"))
    label = np.array([EMOTIONS.index(sample.label) for sample in samples])
    session = np.array([sample.session for sample in samples])
    folds, held_out = make_folds(label, session)
    if not folds:
        raise UserError("too few recordings to compare anything: at least two classes with two samples each are needed; "
                        f"run: python scr/record_dataset.py --subject {args.subject}")
    if np.bincount(label, minlength=len(EMOTIONS)).min() < FEW:
        print(f"fewer than {FEW} samples of some expression: it will run, but the figures say little; record more", file=sys.stderr)
    print(f"{args.subject}: {len(samples)} samples, {len(set(session.tolist()))} session(s); held out: {held_out}")

    from utils import classifier, plots, training

    network, scaler, info = classifier.load_bundle(args.base)
    classifier.set_seed(args.seed)
    x = training.standardise(scaler, compute_features(landmarks, blendshapes, info["features"]))
    trial = Trial(network, x, label, session, args.steps)
    reports = {name: compare(label, answers) for name, answers in trial.run(folds).items()}
    print_table(reports)

    best = max(METHODS, key=lambda name: reports[name]["balanced_accuracy"])
    if best == "base":
        print("nothing is better than the base model on the held-out samples: keeping it, nothing written; record another "
              f"session: python scr/record_dataset.py --subject {args.subject}")
        return
    tuned = trial.fit(METHODS[best], np.arange(len(x)))
    classifier.save_bundle(output, tuned, scaler, info | {
        "name": args.subject, "recipe": f"personal: {METHODS[best].title}", "base": info["sha256"][f"{classifier.NAME}.keras"],
        "data": {"subject": args.subject, "samples": len(samples), "sessions": sorted(set(session.tolist()))},
        "metrics": {"held_out": reports}})
    plots.plot_confusion_matrix(output / "confusion_matrix.png", reports[best]["confusion_matrix"], EMOTIONS,
                                f"{args.subject}, {METHODS[best].title}, held out: {held_out}\n"
                                f"balanced accuracy {reports[best]['balanced_accuracy']:.3f} "
                                f"(base model {reports['base']['balanced_accuracy']:.3f})")
    print(f"wrote {relative(output)} ({METHODS[best].title}, trained on all samples); run: python scr/main.py --model "
          f"{args.subject if args.output is None else output}")


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
        last = np.concatenate([np.empty(0, int), *(rows[-max(1, len(rows) // 3):] for rows in of_class if len(rows) > 1)])
        folds = [(np.setdiff1d(np.arange(len(label)), last), last)]
        held_out = "the last third of each class in time (record a second session for a better test)"
    return [(train, test) for train, test in folds if len(np.unique(label[train])) > 1 and len(test)], held_out


class Trial:
    """Trains each method on some rows and asks it about others; x (n, d) standardised features, label and session (n,)."""

    def __init__(self, network, x: np.ndarray, label: np.ndarray, session: np.ndarray, steps: int):
        self.network, self.x, self.label, self.session, self.steps = network, x, label, session, steps

    def run(self, folds: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the answers (folds, n) of each method, `NOT_ASKED` where a fold does not test.

        The row `picked` chooses its method for each fold by validation inside the fold's own training rows: what one can
        expect of the choice, without a look at the test.
        """
        from tqdm import tqdm

        answers = {name: np.full((len(folds), len(self.x)), NOT_ASKED) for name in (*METHODS, PICKED)}
        inner = [make_folds(self.label[train], self.session[train])[0] for train, _ in folds]
        with tqdm(total=(len(folds) + sum(map(len, inner))) * len(METHODS), unit="fit", desc="comparing") as bar:
            self.bar = bar
            for number, (train, test) in enumerate(folds):
                for name, method in METHODS.items():
                    answers[name][number, test] = self.answer(method, train, test)
                answers[PICKED][number] = answers[self.pick(train, inner[number])][number]
        return answers

    def pick(self, rows: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]) -> str:
        """Return the method that does best on folds within `rows`; the base model where there is nothing to judge by."""
        scores = dict.fromkeys(METHODS, 0.0)
        for train, test in folds:
            for name, method in METHODS.items():
                predicted = self.answer(method, rows[train], rows[test])
                scores[name] += evaluate_predictions(self.label[rows[test]], predicted, EMOTIONS)["balanced_accuracy"]
        return max(scores, key=scores.get)

    def answer(self, method: Method, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Return the class indices that a network trained on some rows gives to others."""
        predicted = self.fit(method, train)(self.x[test], training=False).numpy().argmax(axis=1)
        self.bar.update()
        return predicted

    def fit(self, method: Method, rows: np.ndarray):
        """Return a copy of the network, trained by a method on some rows."""
        from utils import classifier

        tuned = classifier.copy_network(self.network, reset=method.from_scratch)
        if method.trainable_layers == 0:
            return tuned
        classifier.freeze_early_layers(tuned, method.trainable_layers)
        label = self.label[rows]
        weight = class_source_weights(label, np.zeros(len(rows)))
        classifier.fine_tune(tuned, (self.x[rows], label, weight), method.learning_rate, self.steps)
        return tuned


def compare(label: np.ndarray, answers: np.ndarray) -> dict:
    """Return the report over all held-out samples, with the balanced accuracy of each fold; answers (folds, n)."""
    asked = answers != NOT_ASKED
    report = evaluate_predictions(np.concatenate([label[rows] for rows in asked]), answers[asked], EMOTIONS)
    report["folds"] = [evaluate_predictions(label[rows], fold[rows], EMOTIONS)["balanced_accuracy"]
                       for rows, fold in zip(asked, answers)]
    return report


def print_table(reports: dict) -> None:
    """Print the methods side by side."""
    print(f"{'on held-out samples':<38}{'balanced accuracy':>18}{'  95% interval':<18}{'worst to best fold':>20}")
    for name, report in reports.items():
        low, high = report["balanced_accuracy_interval"]
        title = METHODS[name].title if name in METHODS else "to expect: chosen by inner validation"
        print(f"{title:<38}{report['balanced_accuracy']:>18.3f}  {low:.3f} to {high:.3f}  "
              f"{min(report['folds']):>12.3f} to {max(report['folds']):.3f}")


if __name__ == "__main__":
    run_script(main, build_parser())
