"""Your recordings -> your own model: fine-tunes the general one and shows, on a held-out session, what it
gains.

    python scr/train_personal.py --subject ann
    python scr/main.py --model ann

The base model is never touched: yours goes to models/personal/SUBJECT. If nothing beats the base model,
that is said. What a fine-tuned model forgets about other people is measured on the base model's own test
set, and bounded.
"""

from utils.cli import run_script

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.config import (
    MODELS,
    PERSONAL_DATA,
    PERSONAL_MODELS,
    SEED,
    UserError,
    make_parser,
    note,
    number,
    positive_int,
    relative,
    seed,
)
from utils.data.face_set import FaceSet
from utils.data.recordings import load_classes, load_subject, record_command, save_neutral
from utils.evaluation import plots
from utils.model import bundle
from utils.model.no_model import write_no_model
from utils.training import export, networks
from utils.training.base import Base, find_general, open_base, recorded_embedding
from utils.training.own_classes import OwnTrial, beats_chance, confusions
from utils.training.personal import Others, Trial, make_folds

FEW = 10
"""Samples of an expression under which the user is told that the figures say little."""
MOST_BLOCKS = 3
"""Sessions are held out one by one, or, if there are more, in this many blocks: more would take longer
than a minute."""


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--subject", required=True, metavar="NAME", help="whose recordings (data/personal/NAME)"
    )
    parser.add_argument("--base", type=Path, default=MODELS, metavar="DIR", help="bundle to start from")
    parser.add_argument(
        "--data", type=Path, default=PERSONAL_DATA, metavar="DIR", help="folder of recordings"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the model (default: models/personal/SUBJECT)"
    )
    parser.add_argument(
        "--max-forgetting",
        type=number(0, 1),
        default=0.05,
        metavar="SHARE",
        help="balanced accuracy that the model may lose on other people's faces; 1: no bound",
    )
    parser.add_argument(
        "--general",
        type=Path,
        metavar="FILE",
        help="landmark set of other people's faces (default: the base model's own test set)",
    )
    parser.add_argument("--steps", type=positive_int, default=150, help="training steps of each method")
    parser.add_argument("--seed", type=seed, default=SEED, help="seed of weights and order")
    return parser


def main(args):
    output = args.output or PERSONAL_MODELS / args.subject
    refuse_base(output, args.base)
    recorded = load_recordings(args)
    tell_recorded(args.subject, recorded)
    make_folder(output)
    base, trial = open_own_trial(args, recorded) if recorded.own else open_trial(args, recorded)
    reports = trial.run(recorded.folds)
    report_comparison(output, args, recorded, trial, reports)
    best = trial.best(reports)
    if recorded.own and not beats_chance(reports[best], len(recorded.classes)):
        tell_contradiction(output, args, recorded, reports[best])
    elif best == "base":
        tell_nothing_gained(output, args)
    elif trial.methods[best].neutral_baseline:
        keep_neutral(output, args, recorded)
    else:
        write_model(output, args, recorded, base, trial, best, reports)


@dataclass(frozen=True)
class Recorded:
    """A person's recordings: faces, class index and block (n,), and which rows are held out in turn."""

    classes: tuple[str, ...]
    own: bool
    """whether the base model lacks some of the classes"""
    person: FaceSet
    embedding: np.ndarray | None
    """(n, e) of the base model's crop network, or None and `no_embedding` tells why"""
    no_embedding: str
    label: np.ndarray
    block: np.ndarray
    sessions: list[str]
    folds: list[tuple[np.ndarray, np.ndarray]]
    held_out: str

    @property
    def absent(self) -> list[str]:
        """The classes without a sample."""
        return [name for index, name in enumerate(self.classes) if not (self.label == index).any()]


def refuse_base(output: Path, base: Path) -> None:
    """Raise UserError if the personal model would overwrite the base model."""
    if output.resolve() == base.resolve():
        raise UserError(
            f"{relative(output)} holds the base model, which is never overwritten; choose another --output"
        )


def load_recordings(args) -> Recorded:
    """Return the subject's recordings; raises UserError if there are too few to hold any out."""
    samples, dropped = load_subject(args.subject, args.data)
    if dropped:
        note(f"{dropped} damaged lines in the recordings were dropped; all others are used")
    person = FaceSet(
        np.stack([sample.landmarks for sample in samples]),
        np.array([sample.label for sample in samples]),
        np.stack([sample.blendshapes for sample in samples]),
    )
    classes, own = own_or_base_classes(args, {sample.label for sample in samples})
    label = person.class_index(classes)
    sessions = sorted({sample.session for sample in samples})
    block = np.array([sessions.index(sample.session) % MOST_BLOCKS for sample in samples])
    folds, held_out = make_folds(label, block)
    if not folds:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(person.label.tolist()).items())
        raise UserError(
            f"too few recordings to hold any out: {len(sessions)} session(s) of {args.subject} with "
            f"{counts}; it takes two expressions in one session, and another "
            "session or a second sample of one of them; "
            f"run: {record_command(args.subject, args.data)} (--source FOLDER: from pictures)"
        )
    if len(sessions) > MOST_BLOCKS:
        held_out = f"each third of the {len(sessions)} sessions in turn"
    embedding, why = recorded_embedding(samples, args.base)
    return Recorded(classes, own, person, embedding, why, label, block, sessions, folds, held_out)


def own_or_base_classes(args, labels: set[str]) -> tuple[tuple[str, ...], bool]:
    """Return the base model's classes, or those recorded if it lacks one of them, and whether it does."""
    known = tuple(bundle.load_info(args.base)["classes"])
    if labels <= set(known):
        return known, False
    kept = load_classes(args.subject, args.data) or ()
    classes = tuple(name for name in kept if name in labels) or tuple(sorted(labels))
    if absent := [name for name in kept if name not in labels]:
        note(f"no samples of {', '.join(absent)}: the model will not know it")
    note(f"classes: {', '.join(classes)}; the base model lends its features, and gets a new last layer")
    return classes, True


def tell_recorded(subject: str, recorded: Recorded) -> None:
    """Print what was recorded, and what is missing in it."""
    if recorded.absent:
        note(
            f"no samples of {', '.join(recorded.absent)}: what these look like on this face is not learned, "
            "and may be forgotten"
        )
    if np.bincount(recorded.label, minlength=len(recorded.classes)).min() < FEW:
        note(f"fewer than {FEW} samples of some expression: the figures will say little; record more")
    print(
        f"{subject}: {len(recorded.label)} samples, {len(recorded.sessions)} session(s); "
        f"held out: {recorded.held_out}",
        flush=True,
    )


def make_folder(output: Path) -> None:
    """Make the model's folder now, not after the work; raises UserError if that fails."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"can't write to {relative(output)}: {error.strerror}; choose another --output"
        ) from error


def open_trial(args, recorded: Recorded) -> tuple[Base, Trial]:
    """Return the base model and the trial that trains copies of it and measures what they gain and forget."""
    note("loading TensorFlow and the base model ...")
    base, less = open_base(args.base, recorded.embedding)
    if less:
        note(f"{recorded.no_embedding}: {less}; record again for all of it")
    note("loading faces of other people, to see what is forgotten ...")
    general, problem = find_general(args.general, base)
    if problem:
        note(f"{problem}; forgetting is not measured, and {unmeasured(args.max_forgetting)}")
    classes = base.info["classes"]
    networks.set_seed(args.seed)
    trial = Trial(
        base.network,
        base.seen(recorded.person, recorded.embedding),
        recorded.label,
        recorded.block,
        args.steps,
        None if problem else Others(base.seen(general), general, base.network, classes),
        args.max_forgetting,
        None if "neutral" in recorded.absent else base.neutral,
        classes,
    )
    return base, trial


def open_own_trial(args, recorded: Recorded) -> tuple[Base, OwnTrial]:
    """Return the base model with a new last layer for the recorded classes, and the trial of training it."""
    note("loading TensorFlow and the base model ...")
    base, less = open_base(args.base, recorded.embedding)
    if less:
        note(f"{recorded.no_embedding}: {less}; record again for all of it")
    networks.set_seed(args.seed)
    network = networks.with_new_last_layer(base.network, len(recorded.classes))
    x = base.seen(recorded.person, recorded.embedding)
    trial = OwnTrial(network, x, recorded.label, recorded.block, args.steps, recorded.classes)
    return replace(base, network=network), trial


def report_comparison(output: Path, args, recorded: Recorded, trial: Trial, reports: dict) -> None:
    """Print and plot how the methods do on what they were not trained on."""
    print_table(reports)
    title = (
        f"{args.subject}: ways to a personal model, asked about what they were not trained on\n"
        f"held out: {recorded.held_out} ({len(recorded.folds)} split{'s' * (len(recorded.folds) > 1)}, "
        f"{reports[trial.first]['faces']} samples)"
    )
    panels = comparison(reports, trial.others, args.max_forgetting)
    plots.plot_comparison(output / "comparison.png", *panels, title)
    before, after = (reports[name]["balanced_accuracy"] for name in (trial.first, "picked"))
    least = (
        f"guessing is right on {1 / len(recorded.classes):.0%}, the nearest mean face"
        if recorded.own
        else "the base model is right"
    )
    print(
        f"averaged over the expressions, {least} on {before:.0%} of what was held out; "
        f"what is chosen now can be expected to be right on about {after:.0%} (last row)"
    )


def tell_contradiction(output: Path, args, recorded: Recorded, report: dict) -> None:
    """Say that nothing beats guessing, which classes are confused, and what to record again."""
    low, high = report["balanced_accuracy_interval"]
    print(
        f"nothing is surely better than guessing ({1 / len(recorded.classes):.0%}) on what was held out; "
        f"the best way, {report['title']}, is right on {report['balanced_accuracy']:.0%} "
        f"(95% {low:.0%} to {high:.0%}): the recordings contradict each other, or are too few. "
        f"No model is written{bundle.earlier_model(output)}"
    )
    write_no_model(output, "the recordings contradict each other, or are too few; record again")
    if found := confusions(report, recorded.classes):
        print(f"confused: {'; '.join(found)}. Record these again, each plainly different from the others:")
    # Recordings of before classes were kept with them do not say what theirs are.
    print(record_command(args.subject, args.data, "--classes", *recorded.classes))


def tell_nothing_gained(output: Path, args) -> None:
    """Say that the base model is kept."""
    write_no_model(output, "nothing was better than the base model on the held-out samples", args.base)
    print(
        "nothing is better than the base model on the held-out samples: keeping it, no model written"
        f"{bundle.earlier_model(output)}; see {relative(output / 'comparison.png')}, and record another "
        f"session: {record_command(args.subject, args.data)}"
    )


def keep_neutral(output: Path, args, recorded: Recorded) -> None:
    """Keep the subject's neutral face as the baseline that live use takes."""
    neutral = recorded.person.of_classes(["neutral"])
    why = f"the base model with the neutral baseline was best (--subject {args.subject} takes it)"
    write_no_model(output, why, args.base)
    path = save_neutral(args.subject, neutral.landmarks, neutral.blendshapes, args.data)
    print(
        "nothing is better than the base model with your neutral baseline: no model written, that face is "
        f"kept in {relative(path)}{bundle.earlier_model(output)}; "
        f"run: python scr/main.py --subject {args.subject}"
    )


def write_model(
    output: Path, args, recorded: Recorded, base: Base, trial: Trial, best: str, reports: dict
) -> None:
    """Train by the best method on all samples, write the model's folder and say what it has forgotten."""
    note("training on all samples and writing the model ...")
    title = trial.methods[best].title
    outcome = trial.fit(trial.methods[best], np.arange(len(recorded.label)))
    forgetting = {"bound": args.max_forgetting, "share": outcome.share}
    if trial.others:
        forgetting |= {
            "faces": relative(args.general) if args.general else "the base model's own test set",
            "before": trial.others.base,
            "after": outcome.others,
        }
    about = {
        "name": args.subject,
        "recipe": f"personal: {title}",
        "base": base.info["sha256"][f"{bundle.NAME}.keras"],
        "data": {"subject": args.subject, "samples": len(recorded.label), "sessions": recorded.sessions},
        "metrics": {"held_out": reports, "forgetting": forgetting},
    }
    if recorded.own:
        threshold = round(reports[best]["threshold"], 3)
        about |= {"classes": list(recorded.classes), "threshold": threshold}
        about["parts"] = {"landmarks": {"threshold": threshold}}
        about["metrics"] = {"held_out": reports}
    parts = {"landmarks": (outcome.network, base.scaler)}
    export.save_bundle(output, parts, base.info | about, base.files)
    plots.plot_confusion_matrix(
        output / "confusion_matrix.png",
        reports[best]["confusion_matrix"],
        recorded.classes,
        f"{args.subject}, {title}, held out: {recorded.held_out}\n"
        f"balanced accuracy {reports[best]['balanced_accuracy']:.3f} "
        f"({trial.methods[trial.first].title} {reports[trial.first]['balanced_accuracy']:.3f})",
    )
    if not recorded.own:
        print(describe_forgetting(forgetting))
    print(
        f"wrote {relative(output)} ({title}, trained on all samples; comparison.png compares the ways); run: "
        f"python scr/main.py --model {args.subject if args.output is None else output}"
    )


def unmeasured(max_forgetting: float) -> str:
    """Return what is done where forgetting can't be measured."""
    return "nothing bounds it" if max_forgetting >= 1 else "half of the change is kept"


def describe_forgetting(forgetting: dict) -> str:
    """Return the line that says what the personal model has forgotten."""
    kept = f"{forgetting['share']:.0%} of the fine-tuning's change is kept"
    if forgetting["share"] < 1:
        kept += " (for a model of this face alone: --max-forgetting 1)"
    if "after" not in forgetting:
        return f"what it forgets about other people: not measured; {kept}"
    before, after = (forgetting[name] for name in ("before", "after"))
    lost = before["balanced_accuracy"] - after["balanced_accuracy"]
    return (
        f"other people ({forgetting['faces']}, {after['faces'] + after['missed']:,} pictures): "
        f"balanced accuracy {before['balanced_accuracy']:.3f} before, "
        f"{after['balanced_accuracy']:.3f} after; it forgets {lost:.3f}, "
        f"allowed is {forgetting['bound']:g}; {kept}"
    )


def comparison(reports: dict, others: Others | None, max_forgetting: float) -> tuple[list[str], dict]:
    """Return the names and the panels of the figure that compares the methods: whatever rows `reports`
    has."""
    rows = reports.values()
    panels = {
        "balanced accuracy on held-out samples\n(bar: 95% interval)": [
            (row["balanced_accuracy"], *row["balanced_accuracy_interval"]) for row in rows
        ]
    }
    if others:
        count = others.base["faces"] + others.base["missed"]
        panels[
            f"balanced accuracy on {count:,} pictures of other people\n"
            f"(bar: worst to best split; allowed: {max_forgetting:g} less)"
        ] = [(np.mean(row["others"]), min(row["others"]), max(row["others"])) for row in rows]
    return [row["title"] for row in rows], panels


def print_table(reports: dict) -> None:
    """Print the methods side by side."""
    measured = any("forgotten" in report for report in reports.values())
    print(
        f"{'on held-out samples':<38}{'balanced accuracy':>18}{'  95% interval':<18}"
        f"{'worst to best fold':>20}{'  forgets (worst)' if measured else ''}{'  change kept':>14}"
    )
    for report in reports.values():
        low, high = report["balanced_accuracy_interval"]
        kept = "-" if report["unchanged"] else f"{np.mean(report['shares']):.0%}"
        forgets = (
            f"  {np.mean(report['forgotten']):>6.3f} ({max(report['forgotten']):.3f})" if measured else ""
        )
        print(
            f"{report['title']:<38}{report['balanced_accuracy']:>18.3f}  {low:.3f} to {high:.3f}  "
            f"{min(report['folds']):>12.3f} to {max(report['folds']):.3f}{forgets}{kept:>13}"
        )
    print(
        "change kept: how much of what the training changed; fold: a part that was held out;\n"
        "to expect: for each fold the way was chosen without it"
    )
    if measured:
        print("forgets: balanced accuracy lost on other people, mean and worst fold")


if __name__ == "__main__":
    run_script(main, build_parser())
