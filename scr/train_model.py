"""Landmark sets -> a trained model in models/: network, scaler, LiteRT model, JSON and two figures.

    python scr/train_model.py
    python scr/train_model.py --recipe published --data data/dataset_Affectnet_balanced.txt --output models/published

The test part is looked at once, after training. Two runs with one seed give the same weights.
"""

import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from utils.config import DATA, EMOTIONS, MODELS, SEED, UserError, make_parser, positive_int, relative, run_script
from utils.dataset import LandmarkSet, assign_split, class_source_weights, concatenate, load_landmarks
from utils.features import compute_features, fit_recipe


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained."""

    features: str
    layers: tuple[tuple[int, float, bool], ...]  # (units, dropout, batch norm)
    learning_rate: float
    epochs: int
    batch_size: int
    patience: int
    input_noise: float = 0.0
    weight_decay: float = 0.0
    balance_within_source: bool = False


RECIPES = {
    # The README's first recipe, to the letter. At this rate it needs hundreds of epochs.
    "published": Recipe("raw", ((1024, 0.5, True), (512, 0.5, True), (256, 0.4, True), (128, 0.3, False)),
                        learning_rate=1e-5, epochs=500, batch_size=32, patience=15),
    # Aligned points, so that the crop says nothing; one small layer and strong noise, because what limits is noise between
    # sources, not capacity; equal classes within each source, so that the source says nothing about the class.
    "default": Recipe("aligned", ((128, 0.0, False),), learning_rate=1e-3, epochs=60, batch_size=128, patience=9,
                      input_noise=0.5, weight_decay=1e-3, balance_within_source=True),
}


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, nargs="+", default=[DATA / "dataset_Affectnet_balanced.npz"], metavar="FILE",
                        help="landmark sets, .npz or .txt")
    parser.add_argument("--recipe", choices=RECIPES, default="default", help="published: the README's recipe to the letter")
    parser.add_argument("--output", type=Path, default=MODELS, metavar="DIR", help="folder for the model")
    parser.add_argument("--epochs", type=positive_int, help="most epochs (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of split, weights and order")
    return parser


def main(args):
    recipe = RECIPES[args.recipe]
    data = concatenate([load_landmarks(path) for path in args.data]).of_classes(EMOTIONS)
    require_classes(data, args.data)
    data = assign_split(data, args.seed)

    from utils import classifier, metrics, plots

    classifier.set_seed(args.seed)
    parts = {name: data.part(name) for name in ("train", "val", "test")}
    print("  ".join(f"{name} {len(part)}" for name, part in parts.items()), file=sys.stderr)
    features = fit_recipe(recipe.features, parts["train"].landmarks)
    x = {name: compute_features(part.landmarks, features) for name, part in parts.items()}
    y = {name: part.class_index() for name, part in parts.items()}
    weight = {name: class_source_weights(part.label, part.source if recipe.balance_within_source else np.full(len(part), ""))
              for name, part in parts.items()}
    scaler = fit_scaler(x["train"])
    x = {name: scaler.transform(values).astype(np.float32) for name, values in x.items()}

    network = classifier.build_network(x["train"].shape[1], len(EMOTIONS), recipe.layers, recipe.input_noise, recipe.weight_decay)
    history = classifier.fit_network(
        network, *((x[name], y[name], weight[name]) for name in ("train", "val")), recipe.learning_rate,
        args.epochs or recipe.epochs, recipe.batch_size, recipe.patience)

    probabilities = network.predict(x["test"], batch_size=1024, verbose=0)
    report = metrics.evaluate_predictions(*metrics.with_missed(y["test"], probabilities, parts["test"].missed_index()), EMOTIONS)
    info = {
        "name": classifier.NAME, "classes": list(EMOTIONS), "features": features, "threshold": 0.0,
        "recipe": args.recipe, "training": asdict(recipe) | {"seed": args.seed, "epochs_run": len(history["loss"])},
        "data": describe_data(data, args.data), "metrics": {"test": report},
    }
    classifier.save_bundle(args.output, network, scaler, info)
    plots.plot_learning_curves(args.output / "learning_curves.png", history, f"Learning curves, recipe '{args.recipe}'")
    plots.plot_confusion_matrix(args.output / "confusion_matrix.png", report["confusion_matrix"], EMOTIONS,
                                f"Test part ({', '.join(sorted(set(data.source.tolist())))})\n"
                                f"balanced accuracy {report['balanced_accuracy']:.3f}")
    print(f"test part of {', '.join(map(relative, args.data))}:\n{metrics.format_report(report, EMOTIONS)}")
    print(f"wrote {relative(args.output)}: {classifier.NAME}.keras, scaler.pkl, {classifier.NAME}.tflite, {classifier.NAME}.json, "
          "learning_curves.png, confusion_matrix.png")


def fit_scaler(x: np.ndarray):
    """Return a `StandardScaler` fitted on features (n, d), its constants rounded to float32, as deployment has them."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    scaler.mean_, scaler.scale_ = (values.astype(np.float32).astype(np.float64) for values in (scaler.mean_, scaler.scale_))
    return scaler


def require_classes(data: LandmarkSet, paths: list[Path]) -> None:
    """Raise UserError unless every class has faces."""
    if absent := [name for name in EMOTIONS if name not in data.label]:
        raise UserError(f"no {' and no '.join(absent)} in {', '.join(map(relative, paths))}; add pictures of it: "
                        "python scr/extract_landmarks.py --help")


def describe_data(data: LandmarkSet, paths: list[Path]) -> dict:
    """Return what went in: files, and counts by split, source and class."""
    counts = Counter(zip(data.split.tolist(), data.source.tolist(), data.label.tolist()))
    return {"files": [relative(path) for path in paths],
            "counts": {f"{split}/{source}/{label}": count for (split, source, label), count in sorted(counts.items())}}


if __name__ == "__main__":
    run_script(main, build_parser())
