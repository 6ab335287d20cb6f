"""What fine-tuning for a group gains on other pictures of its source, and loses elsewhere.

    python scr/train_model.py --network hybrid --data data/affectnet.faces --output models/no
    python tests/measure/group_fine_tuning.py --base models/no --data data/rafdb.faces \
        --general data/kdef.faces

The base must not have been trained on the set of --data. Some of its pictures are drawn and fine-tuned on,
once for each seed, with what is lost on --general bounded, and as without such a set (models/README.md).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scr"))

from utils.cli import make_parser, number, positive_int, run_script

import numpy as np

from utils.data.face_set import load_face_set
from utils.training.fine_tuning import Examples, Reference, fine_tune_layer
from utils.training.pretrained import Pretrained, embed_set, open_pretrained, open_reference


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--base", type=Path, required=True, metavar="DIR", help="model to start from")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="set it was not trained on")
    parser.add_argument("--general", type=Path, required=True, metavar="FILE", help="set from elsewhere")
    parser.add_argument("--per-class", type=positive_int, default=150, help="pictures of each class")
    parser.add_argument("--max-forgetting", type=number(0, 1), default=0.02, metavar="SHARE")
    parser.add_argument("--seeds", type=positive_int, default=3, help="draws")
    return parser


def main(args):
    data = load_face_set(args.data)
    base = open_pretrained(args.base, embed_set(data.select(slice(0, 100)), args.base))
    data = data.of_classes(base.classes)
    general, _ = open_reference(args.general, base)
    print(f"elsewhere: {len(general.label)} faces")
    hidden, label = base.hidden(data), data.class_index(base.classes)
    rows = [measure(args, base, hidden, label, general, seed) for seed in range(args.seeds)]
    print(
        f"{'mean and worst of draws':<36}{'alpha':>7}{'its source':>12}{'(gain, worst)':>22}{'elsewhere':>11}"
    )
    for name in rows[0]:
        alpha, own, gain, away = np.array([row[name] for row in rows]).T
        worst = f"({gain.mean():+.3f}, {gain.min():+.3f})"
        print(f"{name:<36}{alpha.mean():>7.2f}{own.mean():>12.3f}{worst:>22}{away.mean():>11.3f}")


def measure(
    args, base: Pretrained, hidden: np.ndarray, label: np.ndarray, general: Reference, seed: int
) -> dict:
    """Return (alpha, balanced accuracy on the others, gain, balanced accuracy elsewhere) of each way."""
    drawn = np.random.default_rng(seed).permutation(len(label))
    drawn = np.concatenate([drawn[label[drawn] == name][: args.per_class] for name in np.unique(label)])
    rest = np.setdiff1d(np.arange(len(label)), drawn)
    others = Reference("others", hidden[rest], label[rest])
    examples = Examples(hidden[drawn], label[drawn], np.zeros(len(drawn)), drawn)

    def row(alpha: float, layer) -> tuple:
        own, before, away = (
            faces.balanced_accuracy(one)
            for faces, one in ((others, layer), (others, base.layer), (general, layer))
        )
        return alpha, own, own - before, away

    rows = {"base": row(0.0, base.layer)}
    ways = ("fine-tuned, loss elsewhere bounded", general), ("fine-tuned, not measured", None)
    for name, reference in ways:
        tuned = fine_tune_layer(base.layer, examples, reference, args.max_forgetting, seed)
        rows[name] = row(tuned.alpha, tuned.layer)
    return rows


if __name__ == "__main__":
    run_script(main, build_parser())
