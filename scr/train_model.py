"""Landmark sets -> a trained model in models/: network, scaler, LiteRT model, JSON and two figures.

    python scr/train_model.py
    python scr/train_model.py --recipe published --data data/dataset_Affectnet_balanced.txt --output models/published

The test part is looked at once, after training. Two runs with one seed give the same weights.
"""

from utils.script import run_script

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from utils.config import (
    DATA,
    EMOTIONS,
    MODELS,
    SEED,
    UserError,
    make_parser,
    note,
    positive_int,
    relative,
    seed,
)
from utils.data.dataset import LandmarkSet, assign_split, concatenate, load_landmarks
from utils.learning import bundle, export, metrics, plots, training


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[DATA / "dataset_Affectnet_balanced.npz"],
        metavar="FILE",
        help="landmark sets, .npz or .txt",
    )
    parser.add_argument(
        "--recipe",
        choices=training.RECIPES,
        default="default",
        help="published: the README's recipe to the letter",
    )
    parser.add_argument("--output", type=Path, default=MODELS, metavar="DIR", help="folder for the model")
    parser.add_argument("--epochs", type=positive_int, help="most epochs (default: the recipe's)")
    parser.add_argument("--seed", type=seed, default=SEED, help="seed of split, weights and order")
    return parser


def main(args):
    data = concatenate([load_landmarks(path) for path in args.data]).of_classes(EMOTIONS)
    require_classes(data, args.data)
    data = assign_split(data, args.seed)

    recipe = training.RECIPES[args.recipe]
    recipe = replace(recipe, epochs=args.epochs or recipe.epochs)
    parts = {name: data.part(name) for name in ("train", "val", "test")}
    note("  ".join(f"{name} {len(part)}" for name, part in parts.items()))
    trained = training.train(parts["train"], parts["val"], recipe, args.seed)
    if len(parts["train"]) < 1000:
        note(
            f"only {len(parts['train'])} faces to learn from: expect little; the shipped model had 27,000. To teach it one person's "
            "face, a few dozen do: python scr/train_personal.py --help"
        )
    if trained.dropped:
        note(
            f"label-noise filtering left out {trained.dropped} faces (out-of-fold confidence of their label under {recipe.min_label_confidence:g})"
        )

    test = parts["test"]
    answers = metrics.with_missed(test.class_index(), training.predict(trained, test), test.missed_index())
    report = metrics.evaluate_predictions(*answers, EMOTIONS)
    info = {
        "name": bundle.NAME,
        "classes": list(EMOTIONS),
        "features": trained.features,
        "threshold": round(trained.threshold, 3),
        "recipe": args.recipe,
        "training": asdict(recipe)
        | {
            "seed": args.seed,
            "epochs_run": len(trained.history["loss"]),
            "temperature": trained.temperature,
            "doubtful": trained.dropped,
        },
        "data": describe_data(data, args.data),
        "metrics": {"test": report},
    }
    export.save_bundle(args.output, trained.network, trained.scaler, info)
    plots.plot_learning_curves(
        args.output / "learning_curves.png", trained.history, f"Learning curves, recipe '{args.recipe}'"
    )
    plots.plot_confusion_matrix(
        args.output / "confusion_matrix.png",
        report["confusion_matrix"],
        EMOTIONS,
        f"Test part ({', '.join(sorted(set(data.source.tolist())))})\n"
        f"balanced accuracy {report['balanced_accuracy']:.3f}",
    )
    print(f"test part of {', '.join(map(relative, args.data))}:\n{metrics.format_report(report, EMOTIONS)}")
    print(
        f"wrote {relative(args.output)}: {bundle.NAME}.keras, scaler.pkl, {bundle.NAME}.tflite, {bundle.NAME}.json, "
        "learning_curves.png, confusion_matrix.png"
    )


def require_classes(data: LandmarkSet, paths: list[Path]) -> None:
    """Raise UserError unless every class has faces."""
    if absent := [name for name in EMOTIONS if name not in data.label]:
        raise UserError(
            f"no {' and no '.join(absent)} in {', '.join(map(relative, paths))}; add pictures of it: "
            "python scr/extract_landmarks.py --help"
        )


def describe_data(data: LandmarkSet, paths: list[Path]) -> dict:
    """Return what went in: files, and counts by split, source and class."""
    counts = Counter(zip(data.split.tolist(), data.source.tolist(), data.label.tolist()))
    return {
        "files": [relative(path) for path in paths],
        "counts": {
            f"{split}/{source}/{label}": count for (split, source, label), count in sorted(counts.items())
        },
    }


if __name__ == "__main__":
    run_script(main, build_parser())
