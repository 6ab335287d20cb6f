"""Your recordings -> your own model: fine-tunes the general one and shows on held-out sessions what it gains.

    python scr/train_personal.py --subject ann
    python scr/main.py --model ann

The base model is never touched: yours goes to models/personal/SUBJECT. Its last layer alone learns, and no
more of the change is kept than loses little on other people's faces. Where nothing is gained no model is
written, and the exit status is 1. Classes that the base model lacks get a new last layer.
"""

from utils.cli import make_parser, run_script

from collections import Counter
from pathlib import Path

import numpy as np

from utils.config import MODELS, PERSONAL_DATA, PERSONAL_MODELS, UserError, note, relative
from utils.data.classes import list_names
from utils.data.face_set import FaceSet
from utils.data.recordings import Recordings, Sample, open_recordings, record_command
from utils.evaluation import plots
from utils.model import bundle
from utils.training.fine_tuning import make_folds
from utils.training.pretrained import (
    add_forgetting_options,
    fine_tune_model,
    needed_vocabulary,
    open_pretrained,
)

FEW = 10
"""Samples of an expression under which a note says that the figures mean little."""
FORGETTING = 0.05
"""Balanced accuracy that the model may lose on other people's faces, unless the user says otherwise."""


def build_parser():
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--subject", required=True, metavar="NAME", help="whose recordings (data/personal/NAME)")
    add("--base", type=Path, default=MODELS, metavar="DIR", help="model to start from")
    add("--data", type=Path, default=PERSONAL_DATA, metavar="DIR", help="folder of recordings")
    output = "folder for the model (default: models/personal/SUBJECT)"
    add("--output", type=Path, metavar="DIR", help=output)
    add_forgetting_options(parser, FORGETTING)
    return parser


def main(args):
    output = args.output or PERSONAL_MODELS / args.subject
    if output.resolve() == args.base.resolve():
        raise UserError(
            f"{relative(output)} holds the base model, which is never overwritten; choose another --output"
        )
    with open_recordings(args.subject, args.data, to_read=True) as recordings:  # so that nobody deletes them
        train(args, output, recordings)


def train(args, output: Path, recordings: Recordings) -> None:
    """Fine-tune the base model on recordings; write the model if it is better on what was held out."""
    samples = recordings.samples()
    faces = as_face_set(samples, args)
    classes = choose_classes(recordings.classes, set(faces.label.tolist()), args.base)
    held_out = describe_recorded(args, faces, classes)
    note("loading TensorFlow and the base model ...")
    embedding = recorded_embedding(samples, args)
    base = open_pretrained(args.base, embedding, classes)
    settings = faces.session, args.general, args.max_forgetting, FORGETTING
    result = fine_tune_model(base, faces, embedding, classes, *settings)
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
    about = {"name": args.subject, "recipe": "personal: last layer", "data": data}
    files = base.save(output, result, about, private=True)
    report = result.after.figures()["all"]
    plots.plot_confusion_matrix(
        output / "confusion_matrix.png",
        report["confusion_matrix"],
        result.classes,
        f"{args.subject}, held out: {held_out}\nbalanced accuracy {report['balanced_accuracy']:.3f}",
    )
    (output / "confusion_matrix.png").chmod(0o600)
    print(f"wrote {relative(output)}: {', '.join(files)}, confusion_matrix.png")
    print(f"next: python scr/main.py --model {bundle.argument_of(output)}")


def as_face_set(samples: list[Sample], args) -> FaceSet:
    """Return the faces of samples as a set; raises UserError if there are too few to hold any out."""
    columns = {
        name: np.array([getattr(sample, name) for sample in samples])
        for name in ("landmarks", "blendshapes", "label", "session")
    }
    faces = FaceSet(**columns)
    if not make_folds(faces.label, faces.session):
        counts = ", ".join(f"{count} {name}" for name, count in Counter(faces.label.tolist()).items())
        raise UserError(
            f"too few recordings to hold any out: {len(np.unique(faces.session))} session(s) of "
            f"{args.subject} with {counts}; record another expression or session: "
            f"{record_command(args.subject, args.data)}"
        )
    return faces


def choose_classes(kept: tuple[str, ...] | None, labels: set[str], base: Path) -> tuple[str, ...]:
    """Return the classes that the base model reads and the recordings need, or those recorded, in the order
    `kept`, if it lacks one of them."""
    info = bundle.load_info(base)
    if labels <= set(info["classes"]):
        return tuple(needed_vocabulary(info, labels)["classes"])
    if absent := [name for name in kept or () if name not in labels]:
        note(f"no samples of {list_names(absent)}: the model will not know it")
    return tuple(name for name in kept or sorted(labels) if name in labels)


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


def describe_recorded(args, faces: FaceSet, classes: tuple[str, ...]) -> str:
    """Print what was recorded, and what is missing in it; return what is held out."""
    counts, sessions = Counter(faces.label.tolist()), len(np.unique(faces.session))
    if absent := [name for name in classes if name not in counts]:
        note(f"no samples of {list_names(absent)}: what these look like on this face is not learned")
    if min(counts.values()) < FEW:
        note(f"fewer than {FEW} samples of some expression: the figures will mean little; record more")
    print(f"{args.subject}: {len(faces)} samples, {sessions} session(s)", flush=True)
    if sessions > 1:
        return "each session in turn"
    return "the last third of each class in time (record a second session for a better test)"


if __name__ == "__main__":
    run_script(main, build_parser())
