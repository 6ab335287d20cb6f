"""What fine-tuning gains on JAFFE: for each woman, learn from two takes of each expression and predict the
third. Not a test.

    python scr/extract_landmarks.py --images data/portraits
    python tests/measure/personal_takes.py
    python tests/measure/personal_takes.py --max-forgetting 1

It prints the table in models/README.md, "Personal models"; some seconds on two cores.
"""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(
    0, str(ROOT / "scr")
)  # this file is no script of the project and no test: nothing else sets its path

from utils.cli import make_parser, run_script

import numpy as np

from utils.config import EMOTIONS, MODELS
from utils.data.face_set import FaceSet, load_face_set
from utils.evaluation.predictions import side_by_side
from utils.training.fine_tuning import Examples, fine_tune
from utils.training.pretrained import embed_set, open_pretrained, open_reference

TAKES = 3


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT / "data" / "portraits.faces",
        metavar="FILE",
        help="landmark set with subjects",
    )
    parser.add_argument(
        "--max-forgetting", type=float, default=0.05, metavar="SHARE", help="as in train_personal.py"
    )
    parser.add_argument("--general", type=Path, metavar="FILE", help="as in train_personal.py")
    parser.add_argument(
        "--model", type=Path, default=MODELS, metavar="DIR", help="bundle that personal models start from"
    )
    return parser


def main(args):
    data = load_face_set(args.data).of_classes(EMOTIONS)
    take = number_takes(data)
    data, take = data.select(take < TAKES), take[take < TAKES]
    embedding = embed_set(data, args.model)
    base = open_pretrained(args.model, embedding)
    reference, problem = open_reference(args.general, base)
    print(
        problem or f"forgetting is measured on {len(reference.label)} faces of {reference.name}", flush=True
    )
    everyone = Examples(
        base.hidden(data, embedding), data.class_index(base.classes), np.zeros(len(data)), take
    )
    results = [
        fine_tune(
            base.layer, everyone.select(data.subject == subject), base.classes, reference, args.max_forgetting
        )
        for subject in np.unique(data.subject)
    ]
    print(side_by_side([pool([result.before for result in results]), pool([one.after for one in results])]))
    for result in results:
        print(result.describe().splitlines()[-1])


def pool(predictions: list):
    """Return predictions for several people's faces as one."""
    columns = "label", "predicted", "confidence", "source", "width"
    pooled = {name: np.concatenate([getattr(one, name) for one in predictions]) for name in columns}
    return replace(predictions[0], **pooled)


def number_takes(data: FaceSet) -> np.ndarray:
    """Return for each picture the how manyth of its person and expression it is, (n,), by path."""
    seen, take = Counter(), np.zeros(len(data), int)
    for row in np.argsort(data.path):
        key = data.subject[row], data.label[row]
        take[row], seen[key] = seen[key], seen[key] + 1
    return take


if __name__ == "__main__":
    run_script(main, build_parser())
