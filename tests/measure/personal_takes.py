"""What fine-tuning gains on JAFFE: for each woman, train on two takes of each expression and ask about
the third. Not a test.

    python scr/extract_landmarks.py --images data/portraits
    python tests/measure/personal_takes.py
    python tests/measure/personal_takes.py --max-forgetting 1

It prints, and with --plot FILE draws, the table in models/README.md, "Personal models"; one to two
minutes on two cores.
"""

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(
    0, str(ROOT / "scr")
)  # this file is no script of the project and no test: nothing else sets its path

from utils.cli import run_script  # noqa: E402

import numpy as np  # noqa: E402

from utils.config import EMOTIONS, MODELS, SEED, make_parser  # noqa: E402
from utils.data.face_set import FaceSet, load_face_set  # noqa: E402
from utils.evaluation import plots  # noqa: E402
from utils.evaluation.metrics import evaluate_predictions  # noqa: E402
from utils.training import networks  # noqa: E402
from utils.training.base import embed_set, find_general, open_base  # noqa: E402
from utils.training.personal import METHODS, PICKED, Others, Trial, make_folds  # noqa: E402

TAKES = 3


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT / "data" / "portraits.npz",
        metavar="FILE",
        help="landmark set with subjects",
    )
    parser.add_argument(
        "--max-forgetting", type=float, default=0.05, metavar="SHARE", help="as in train_personal.py"
    )
    parser.add_argument(
        "--unmeasured", action="store_true", help="as in a clone, where nothing tells what is forgotten"
    )
    parser.add_argument(
        "--model", type=Path, default=MODELS, metavar="DIR", help="bundle that personal models start from"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG to draw the table into")
    return parser


def main(args):
    data = load_face_set(args.data).of_classes(EMOTIONS)
    take = number_takes(data)
    data, take = data.select(take < TAKES), take[take < TAKES]
    embedding = embed_set(data, args.model)
    base, less = open_base(args.model, embedding)
    if less:
        print(f"the set has no crops: {less}")
    general, problem = (None, "not measured, as asked") if args.unmeasured else find_general(None, base)
    print(
        problem
        or f"forgetting is measured on {len(general) + len(general.missed_label)} pictures of other people",
        flush=True,
    )
    others = None if general is None else Others(base.seen(general), general, base.network)
    reports = {}
    for subject in sorted(set(data.subject.tolist())):
        networks.set_seed(SEED)
        rows = data.subject == subject
        person, block = data.select(rows), take[rows]
        trial = Trial(
            base.network,
            base.seen(person, embedding[rows] if base.is_joint else None),
            person.class_index(),
            block,
            150,
            others,
            args.max_forgetting,
            base.neutral,
        )
        reports[subject] = trial.run(make_folds(person.class_index(), block)[0])

    names, held_out, on_others = [], [], []
    for name in (*METHODS, PICKED):
        row = [report[name] for report in reports.values()]
        pooled = evaluate_predictions(
            *unfold(sum(np.array(report["confusion_matrix"]) for report in row)), EMOTIONS
        )
        names.append(row[0]["title"])
        held_out.append((pooled["balanced_accuracy"], *pooled["balanced_accuracy_interval"]))
        text = f"{names[-1]:<40}{held_out[-1][0]:.3f} ({held_out[-1][1]:.3f}-{held_out[-1][2]:.3f})"
        if others:
            kept = np.concatenate([report["others"] for report in row])
            on_others.append((kept.mean(), kept.min(), kept.max()))
            forgotten = np.concatenate([report["forgotten"] for report in row])
            text += f"   forgets {forgotten.mean():.3f} (worst {forgotten.max():.3f})"
        print(text)
    if args.plot:
        panels = {"balanced accuracy on held-out samples\n(bar: 95% interval)": held_out}
        if others:
            panels[
                "balanced accuracy on pictures of other people\n"
                f"(bar: worst to best split; allowed: {args.max_forgetting:g} less)"
            ] = on_others
        plots.plot_comparison(
            args.plot,
            names,
            panels,
            f"{len(reports)} people: ways to a personal model, asked about what they were not "
            f"trained on\nheld out: each take in turn ({TAKES * len(reports)} splits, {len(data)} samples)",
        )


def number_takes(data: FaceSet) -> np.ndarray:
    """Return for each picture the how manyth of its person and expression it is, (n,), by path."""
    seen, take = Counter(), np.zeros(len(data), int)
    for row in np.argsort(data.path):
        key = data.subject[row], data.label[row]
        take[row], seen[key] = seen[key], seen[key] + 1
    return take


def unfold(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and answers (n,) that give a confusion matrix (classes, classes + 1), without its
    column of missed faces."""
    label, answer = np.indices(matrix[:, :-1].shape)
    return tuple(np.repeat(part.ravel(), matrix[:, :-1].ravel()) for part in (label, answer))


if __name__ == "__main__":
    run_script(main, build_parser())
