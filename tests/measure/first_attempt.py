"""Why FER2013 gave "15%": the README's first attempt again, with seven classes, in step and out of step.
Not a test.

    python scr/extract_landmarks.py --images data/fer2013 --labels data/fer2013/fer2013new.csv
    python tests/measure/first_attempt.py

It trains on FER2013Train and is judged on FER2013Valid, faces found, labels by FER+ plurality; about five
minutes on two cores.
"""

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(
    0, str(ROOT / "scr")
)  # this file is no script of the project and no test: nothing else sets its path

from utils.cli import make_parser, run_script

import numpy as np

from utils.config import UserError
from utils.data.face_set import FaceSet, load_face_set
from utils.data.splits import class_source_weights
from utils.evaluation.metrics import evaluate_predictions
from utils.faces.features import fit_recipe
from utils.training import landmark_network, networks

CLASSES = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")
PUBLISHED = replace(
    landmark_network.RECIPES["published"], epochs=6
)  # five hundred at 1e-5 take hours and do not change the order
READABLE = replace(PUBLISHED, learning_rate=1e-3)


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT / "data" / "fer2013.faces",
        metavar="FILE",
        help="landmark set of FER2013",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order")
    return parser


def main(args):
    data = load_face_set(args.data).of_classes(CLASSES)
    train_part, val_part = data.part("train"), data.part("val")
    if not len(train_part) or not len(val_part):
        raise UserError(
            f"{args.data} has no parts train and val; the first command in"
            " `python tests/measure/first_attempt.py --help` makes it"
        )
    label, wrong = train_part.class_index(CLASSES), out_of_step(train_part)
    print(
        f"{len(train_part)} faces to train on, {len(val_part)} to judge; out of step:"
        f" {(wrong != label).mean():.0%} of labels wrong\n{'':<40}{'balanced accuracy':>18}{'right':>8}"
    )
    for title, recipe, taught, scaled in (
        ("as published, 6 epochs", PUBLISHED, label, True),
        ("the same without the scaler", PUBLISHED, label, False),
        ("as published, rate 1e-3", READABLE, label, True),
        ("the same, labels out of step", READABLE, wrong, True),
        ("read properly (the default recipe)", landmark_network.RECIPES["default"], label, True),
    ):
        predicted = train_and_predict(train_part, val_part, recipe, taught, scaled, args.seed)
        report = evaluate_predictions(val_part.class_index(CLASSES), predicted, CLASSES)
        right = (predicted == val_part.class_index(CLASSES)).mean()
        print(f"{title:<40}{report['balanced_accuracy']:>18.3f}{right:>8.0%}", flush=True)


def train_and_predict(
    train_part: FaceSet,
    val_part: FaceSet,
    recipe: landmark_network.Recipe,
    label: np.ndarray,
    scaled: bool,
    seed: int,
) -> np.ndarray:
    """Return the class indices that one network, taught `label` (n,) of the training part, predicts for the
    other part."""
    networks.set_seed(seed)
    features = fit_recipe(recipe.features, train_part.landmarks, recipe.blendshapes)
    x, x_val = (
        np.concatenate(list(landmark_network.feature_chunks(part, features)))
        for part in (train_part, val_part)
    )
    scaler = landmark_network.fit_scaler([x])
    if scaled:
        x, x_val = landmark_network.standardise(scaler, x), landmark_network.standardise(scaler, x_val)
    if recipe.components:
        projection = landmark_network.fit_projection(x, scaler, features, recipe.components)
        x, x_val = x @ projection, x_val @ projection
    weight = class_source_weights(label, train_part.source) if not recipe.patience else np.ones(len(label))
    val = x_val, one_hot_twice(val_part.class_index(CLASSES)), np.ones(len(x_val))
    recipe = replace(recipe, networks=1, class_prior=False)
    members, _ = landmark_network.fit_members(
        (x, one_hot_twice(label), weight), val, recipe, seed, progress=False
    )
    return networks.predict_network(members[0], x_val).argmax(axis=1)


def out_of_step(data: FaceSet) -> np.ndarray:
    """Return the labels (n,) that the faces get if a picture without a face is left out of the features
    but not of the labels."""
    path, label = (
        np.concatenate([data.path, data.missed.path]),
        np.concatenate([data.label, data.missed.label]),
    )
    every = np.array([CLASSES.index(name) for name in label[np.argsort(path)].tolist()])
    shifted = np.empty(len(data), int)
    shifted[np.argsort(data.path)] = every[: len(data)]
    return shifted


def one_hot_twice(label: np.ndarray) -> np.ndarray:
    """Return targets (n, 2 * classes) as `training.targets` has them, of faces taught from all classes."""
    one_hot = np.eye(len(CLASSES), dtype=np.float32)[label]
    return np.concatenate([one_hot, np.ones_like(one_hot)], axis=1)


if __name__ == "__main__":
    run_script(main, build_parser())
