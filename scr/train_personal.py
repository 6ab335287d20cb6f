"""Your recordings -> your own model: fine-tunes the general one and shows on held-out sessions what it gains.

    python scr/train_personal.py --subject ann
    python scr/main.py --model ann

The base model is never touched: yours goes to models/personal/SUBJECT. Its last layer alone learns, and no
more of the change is kept than loses little on other people's faces. Where nothing is gained no model is
written, and the exit status is 1. Classes that the base model lacks get a new last layer.
"""

from utils.cli import make_parser, number, run_script

from collections import Counter
from pathlib import Path

import numpy as np

from utils.config import MODELS, PERSONAL_DATA, PERSONAL_MODELS, UserError, note, relative
from utils.data.classes import list_names
from utils.data.face_set import FaceSet
from utils.data.recordings import load_classes, load_subject, record_command
from utils.evaluation import plots
from utils.model import bundle
from utils.training.fine_tuning import make_folds
from utils.training.pretrained import fine_tune_model, open_pretrained

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
    samples, faces = load_recordings(args)
    classes = choose_classes(args, set(faces.label.tolist()))
    held_out = tell_recorded(args, faces, classes)
    note("loading TensorFlow and the base model ...")
    embedding = recorded_embedding(samples, args)
    base = open_pretrained(args.base, embedding)
    settings = classes, faces.session, args.general, args.max_forgetting
    result = fine_tune_model(base, faces, embedding, *settings)
    print(f"held out, {held_out}:\n{result.describe()}")
    if result.problem:
        again = record_command(
            args.subject, args.data, *(("--classes", *classes) if result.from_zero else ())
        )
        raise UserError(
            f"no model is written{bundle.earlier_model(output)}: {result.problem}; record again, each "
            f"expression plainly different from the others: {again}"
        )
    sessions = np.unique(faces.session).tolist()
    data = {"subject": args.subject, "samples": len(faces), "sessions": sessions}
    files = base.save(output, result, {"name": args.subject, "recipe": "personal: last layer", "data": data})
    report = result.after.figures()["all"]
    plots.plot_confusion_matrix(
        output / "confusion_matrix.png",
        report["confusion_matrix"],
        result.classes,
        f"{args.subject}, held out: {held_out}\nbalanced accuracy {report['balanced_accuracy']:.3f}",
    )
    print(f"wrote {relative(output)}: {', '.join(files)}, confusion_matrix.png")
    print(f"next: python scr/main.py --model {args.subject if args.output is None else output}")


def load_recordings(args) -> tuple[list, FaceSet]:
    """Return the subject's samples, and their faces as a set; raises UserError if there are too few to hold
    any out."""
    samples = load_subject(args.subject, args.data)
    columns = {
        name: np.array([getattr(sample, name) for sample in samples])
        for name in ("landmarks", "blendshapes", "label", "session")
    }
    faces = FaceSet(**columns)
    if not make_folds(faces.label, faces.session):
        counts = ", ".join(f"{count} {name}" for name, count in Counter(faces.label.tolist()).items())
        raise UserError(
            f"too few recordings to hold any out: {len(np.unique(faces.session))} session(s) of "
            f"{args.subject} with {counts}; it takes two expressions in one session, and another session "
            f"or a second sample of one of them; run: {record_command(args.subject, args.data)} "
            "(--source FOLDER: from pictures)"
        )
    return samples, faces


def choose_classes(args, labels: set[str]) -> tuple[str, ...]:
    """Return the base model's classes, or those recorded if it lacks one of them."""
    known = tuple(bundle.load_info(args.base)["classes"])
    if labels <= set(known):
        return known
    kept = load_classes(args.subject, args.data) or ()
    if absent := [name for name in kept if name not in labels]:
        note(f"no samples of {list_names(absent)}: the model will not know it")
    return tuple(name for name in kept if name in labels) or tuple(sorted(labels))


def recorded_embedding(samples: list, args) -> np.ndarray | None:
    """Return the embeddings (n, e) of recorded samples, or None, with a note, if the crop network of the
    base model is not the one that they were recorded with."""
    network = bundle.load_info(args.base)["sha256"].get(bundle.TFLITE["crop"])
    if network is None:
        return None
    if any(sample.embedding is None or sample.crop_network != network for sample in samples):
        again = record_command(args.subject, args.data, "--model", str(args.base))
        note(
            f"some samples lack what the crop network of {relative(args.base)} makes of them: its landmark "
            f"network alone is fine-tuned; for both, record with: {again}"
        )
        return None
    return np.stack([sample.embedding for sample in samples])


def tell_recorded(args, faces: FaceSet, classes: tuple[str, ...]) -> str:
    """Print what was recorded, and what is missing in it; return what is held out."""
    counts, sessions = Counter(faces.label.tolist()), len(np.unique(faces.session))
    if absent := [name for name in classes if name not in counts]:
        note(f"no samples of {list_names(absent)}: what these look like on this face is not learned")
    if min(counts.values()) < FEW:
        note(f"fewer than {FEW} samples of some expression: the figures will say little; record more")
    print(f"{args.subject}: {len(faces)} samples, {sessions} session(s)", flush=True)
    if sessions > 1:
        return "each session in turn"
    return "the last third of each class in time (record a second session for a better test)"


if __name__ == "__main__":
    run_script(main, build_parser())
