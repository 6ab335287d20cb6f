"""Your recordings -> your own model: fine-tunes the general one and shows on held-out sessions what it gains.

    python scr/train_personal.py --subject ann
    python scr/main.py --model ann

The base model is never touched: yours goes to models/personal/SUBJECT. Its last layer alone learns, and no
more of the change is kept than loses little on other people's faces. Where nothing is gained no model is
written, and the exit status is 1. Classes that the base model lacks get a new last layer.
"""

from utils.cli import make_parser, number, run_script

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.config import MODELS, PERSONAL_DATA, PERSONAL_MODELS, UserError, note, relative
from utils.data.classes import list_names
from utils.data.face_set import FaceSet
from utils.data.recordings import load_classes, load_subject, record_command
from utils.evaluation import plots
from utils.evaluation.answers import side_by_side
from utils.model import bundle
from utils.training.fine_tuning import Examples, LastLayer, Result, fine_tune, make_folds
from utils.training.pretrained import open_pretrained, open_reference

FEW = 10
"""Samples of an expression under which the user is told that the figures say little."""


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
    return parser


def main(args):
    output = args.output or PERSONAL_MODELS / args.subject
    if output.resolve() == args.base.resolve():
        raise UserError(
            f"{relative(output)} holds the base model, which is never overwritten; choose another --output"
        )
    recorded = load_recordings(args)
    tell_recorded(args.subject, recorded)
    note("loading TensorFlow and the base model ...")
    base = open_pretrained(args.base, recorded.embedding)
    examples = recorded.examples(base.hidden(recorded.faces, recorded.embedding))
    if recorded.own:
        start, reference, bound = (
            LastLayer.zeros(*base.layer.kernel.shape[:1], len(recorded.classes)),
            None,
            1,
        )
    else:
        start, bound = base.layer, args.max_forgetting
        reference, problem = open_reference(args.general, base)
        if problem:
            note(f"{problem}; what is forgotten is not measured, and {unmeasured(bound)}")
    result = fine_tune(start, examples, recorded.classes, reference, bound)
    tell_result(args, output, recorded, result)
    files = base.save(output, result, recorded.classes, describe(args, recorded))
    report = result.after.figures()["all"]
    plots.plot_confusion_matrix(
        output / "confusion_matrix.png",
        report["confusion_matrix"],
        recorded.classes,
        f"{args.subject}, held out: {recorded.held_out}\nbalanced accuracy {report['balanced_accuracy']:.3f}",
    )
    print(f"wrote {relative(output)}: {', '.join(files)}, confusion_matrix.png")
    print(f"next: python scr/main.py --model {args.subject if args.output is None else output}")


@dataclass(frozen=True)
class Recorded:
    """A person's recordings."""

    faces: FaceSet
    """with the session of each"""
    classes: tuple[str, ...]
    own: bool
    """whether the base model lacks some of the classes"""
    embedding: np.ndarray | None
    """(n, e) of the base model's crop network, or None"""

    @property
    def held_out(self) -> str:
        """What is held out for the figures."""
        if len(np.unique(self.faces.session)) > 1:
            return "each session in turn"
        return "the last third of each class in time (record a second session for a better test)"

    def examples(self, hidden: np.ndarray) -> Examples:
        """Return what a last layer learns from; hidden (n, h)."""
        one_source = np.zeros(len(self.faces))
        return Examples(hidden, self.faces.class_index(self.classes), one_source, self.faces.session)


def load_recordings(args) -> Recorded:
    """Return the subject's recordings; raises UserError if there are too few to hold any out."""
    samples = load_subject(args.subject, args.data)
    faces = FaceSet(
        np.stack([sample.landmarks for sample in samples]),
        np.array([sample.label for sample in samples]),
        np.stack([sample.blendshapes for sample in samples]),
        session=np.array([sample.session for sample in samples]),
    )
    classes, own = choose_classes(args, set(faces.label.tolist()))
    recorded = Recorded(faces, classes, own, recorded_embedding(samples, args.base))
    if not make_folds(recorded.examples(np.empty((len(faces), 0)))):
        counts = ", ".join(f"{count} {name}" for name, count in Counter(faces.label.tolist()).items())
        raise UserError(
            f"too few recordings to hold any out: {len(np.unique(faces.session))} session(s) of "
            f"{args.subject} with {counts}; it takes two expressions in one session, and another session "
            f"or a second sample of one of them; run: {record_command(args.subject, args.data)} "
            "(--source FOLDER: from pictures)"
        )
    return recorded


def choose_classes(args, labels: set[str]) -> tuple[tuple[str, ...], bool]:
    """Return the base model's classes, or those recorded if it lacks one of them, and whether it does."""
    known = tuple(bundle.load_info(args.base)["classes"])
    if labels <= set(known):
        return known, False
    kept = load_classes(args.subject, args.data) or ()
    classes = tuple(name for name in kept if name in labels) or tuple(sorted(labels))
    if absent := [name for name in kept if name not in labels]:
        note(f"no samples of {list_names(absent)}: the model will not know it")
    note(f"classes: {list_names(classes)}; the base model lends its features, and gets a new last layer")
    return classes, True


def recorded_embedding(samples: list, folder: Path) -> np.ndarray | None:
    """Return the embeddings (n, e) of recorded samples, or None, with a note, if the crop network of the
    bundle in `folder` is not the one that they were recorded with."""
    network = bundle.load_info(folder)["sha256"].get(bundle.TFLITE["crop"])
    if network is None:
        return None
    if any(sample.embedding is None or sample.crop_network != network for sample in samples):
        note(
            f"some samples hold no embedding by the crop network of {relative(folder)}: of this model the "
            "landmark network alone is fine-tuned"
        )
        return None
    return np.stack([sample.embedding for sample in samples])


def tell_recorded(subject: str, recorded: Recorded) -> None:
    """Print what was recorded, and what is missing in it."""
    label = recorded.faces.label.tolist()
    if absent := [name for name in recorded.classes if name not in label]:
        note(f"no samples of {list_names(absent)}: what these look like on this face is not learned")
    if min(Counter(label).values()) < FEW:
        note(f"fewer than {FEW} samples of some expression: the figures will say little; record more")
    sessions = len(np.unique(recorded.faces.session))
    print(
        f"{subject}: {len(label)} samples, {sessions} session(s); held out: {recorded.held_out}", flush=True
    )


def tell_result(args, output: Path, recorded: Recorded, result: Result) -> None:
    """Print how the model does on what was held out; raises UserError if it is not worth writing."""
    report = result.after.figures()["all"]
    chance, earlier = 1 / len(recorded.classes), bundle.earlier_model(output)
    print(side_by_side([result.after] if recorded.own else [result.before, result.after]))
    if recorded.own:
        print(f"guessing is right on {chance:.0%}")
        if report["balanced_accuracy_interval"][0] <= chance:
            again = record_command(args.subject, args.data, "--classes", *recorded.classes)
            found = "; ".join(confusions(report, recorded.classes)) or "nothing in particular"
            raise UserError(
                "no model is written, since nothing is surely better than guessing: the recordings "
                f"contradict each other, or are too few (confused: {found}){earlier}; "
                f"record these again: {again}"
            )
        return
    if not result.is_better:
        raise UserError(
            "no model is written, since on what was held out fine-tuning is not better than the base model"
            f"{earlier}; record another session: {record_command(args.subject, args.data)}"
        )
    print(result.forgetting(args.max_forgetting))


def describe(args, recorded: Recorded) -> dict:
    """Return what the bundle says about the person's model."""
    sessions = np.unique(recorded.faces.session).tolist()
    data = {"subject": args.subject, "samples": len(recorded.faces), "sessions": sessions}
    return {"name": args.subject, "recipe": "personal: last layer", "data": data}


def unmeasured(max_forgetting: float) -> str:
    """Return what is done where forgetting can't be measured."""
    return "nothing bounds it" if max_forgetting >= 1 else "at most half of the change is kept"


def confusions(report: dict, classes, most: int = 3) -> list[str]:
    """Return the largest confusions of a report as text, `wink is taken for kiss (7 of 20)`."""
    matrix = np.array(report["confusion_matrix"])[:, : len(classes)]
    pairs = [
        (matrix[row, column] / matrix[row].sum(), row, column)
        for row, column in zip(*np.nonzero(matrix))
        if row != column
    ]
    return [
        f"{classes[row]} is taken for {classes[column]} ({matrix[row, column]} of {matrix[row].sum()})"
        for _, row, column in sorted(pairs, reverse=True)[:most]
    ]


if __name__ == "__main__":
    run_script(main, build_parser())
