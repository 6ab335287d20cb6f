"""What fine-tuning for a group gains on other pictures of its source, and loses elsewhere.

    python scr/train_model.py --network hybrid --data data/affectnet.faces --output models/no
    python tests/measure/group_fine_tuning.py --base models/no --data data/rafdb.faces \
        --general data/kdef.faces

The base must not have been trained on the set of --data. Some of its pictures are drawn and fine-tuned on,
once for each seed, with what is lost on --general bounded, and as without such a set (models/README.md).
--from-scratch also trains a hybrid on them alone, and judges it on 150 others of each class.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scr"))

from utils.cli import make_parser, number, positive_int, run_script

import numpy as np
from sklearn.metrics import recall_score

from utils.data.face_set import FaceSet, load_face_set
from utils.data.splits import make_split
from utils.training import ensemble
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
    parser.add_argument("--from-scratch", action="store_true", help="also train a model on them alone")
    return parser


def main(args):
    data = load_face_set(args.data)
    base = open_pretrained(args.base, embed_set(data.select(slice(0, 100)), args.base))
    data = data.of_classes(base.classes)
    general, _ = open_reference(args.general, base)
    print(f"elsewhere: {len(general.label)} faces")
    hidden = base.hidden(data)
    rows = [measure(args, base, data, hidden, general, seed) for seed in range(args.seeds)]
    print(
        f"{'mean and worst of draws':<36}{'alpha':>7}{'its source':>12}{'(gain, worst)':>22}{'elsewhere':>11}"
    )
    for name in rows[0]:
        alpha, own, gain, away = np.array([row[name] for row in rows]).T
        worst = f"({gain.mean():+.3f}, {gain.min():+.3f})"
        print(f"{name:<36}{alpha.mean():>7.2f}{own.mean():>12.3f}{worst:>22}{away.mean():>11.3f}")


def measure(args, base: Pretrained, data: FaceSet, hidden: np.ndarray, general: Reference, seed: int) -> dict:
    """Return (alpha, balanced accuracy on the others, gain, balanced accuracy elsewhere) of each way."""
    label = data.class_index(base.classes)
    drawn = np.random.default_rng(seed).permutation(len(label))
    drawn = some_of_each(label, drawn, args.per_class)
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
    if args.from_scratch:
        tested = some_of_each(label, rest, 150)
        accuracy = from_scratch(data, drawn, tested, base.classes, seed)
        rows["from scratch"] = np.nan, accuracy, accuracy - rows["base"][1], np.nan
    return rows


def some_of_each(label: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return the first rows of each class."""
    return np.concatenate([rows[label[rows] == name][:count] for name in np.unique(label)])


def from_scratch(
    data: FaceSet, drawn: np.ndarray, tested: np.ndarray, classes: tuple[str, ...], seed: int
) -> float:
    """Return the balanced accuracy on some rows of a set of a hybrid that was trained on others."""
    split = make_split(data.label[drawn], drawn, test=0, seed=seed)
    data = data.select(np.append(drawn, tested))
    data = data.with_split(np.append(split, np.full(len(tested), "test")), data.missed.split)
    with ensemble.maps_of(data, "hybrid") as data:
        model = ensemble.train("hybrid", data, ensemble.RECIPES["default"], seed, classes, progress=False)
        test = data.part("test")
        predicted = model.predict(test).argmax(axis=1)
    return recall_score(test.class_index(classes), predicted, average="macro")


if __name__ == "__main__":
    run_script(main, build_parser())
