"""Landmark sets -> a trained model in models/mine: networks, scaler, LiteRT models, JSON and figures.

    python scr/train_model.py
    python scr/train_model.py --recipe published --data data/dataset_Affectnet_balanced.txt \\
        --output models/published

The test part is looked at once, after training. Two runs with one seed give the same weights.
"""

from utils.script import run_script

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from utils.config import DATA, MODELS, SEED, UserError, make_parser, note, positive_int, relative, seed
from utils.data.classes import choose_classes
from utils.data.dataset import LandmarkSet, assign_split, concatenate, load_landmarks
from utils.learning import bundle, crop_network, export, hybrid, metrics, plots
from utils.learning.answers import SHIPPED, Pictures, ask_set, of_probabilities, shipped_beside, side_by_side
from utils.learning.classifier import EmotionClassifier


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
        "--network",
        choices=bundle.PARTS,
        default="landmarks",
        help="what it looks at: landmarks, crop (the face's picture), or both, the hybrid, which reads best",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="classes to train on (default: the four emotions of a set that has them, else all it holds)",
    )
    parser.add_argument(
        "--recipe",
        choices=hybrid.RECIPES,
        default="default",
        help="published: the README's recipe to the letter (landmarks)",
    )
    parser.add_argument(
        "--output", type=Path, default=MODELS / "mine", metavar="DIR", help="folder for the model"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help=f"let --output {relative(MODELS)} replace the shipped model"
    )
    parser.add_argument("--epochs", type=positive_int, help="most epochs (default: the recipe's)")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="JSON",
        help="what evaluate.py --leave-one-source-out wrote: temperature and threshold are taken from it "
        "(default: fitted on the validation part)",
    )
    parser.add_argument("--seed", type=seed, default=SEED, help="seed of split, weights and order")
    return parser


def main(args):
    if args.output.resolve() == MODELS and not args.overwrite:
        raise UserError(
            f"--output {relative(args.output)} would replace the shipped model; choose another folder, "
            f"such as {relative(MODELS / 'mine')}, or add --overwrite"
        )
    data = concatenate([load_landmarks(path) for path in args.data])
    classes = choose_classes(data.label.tolist(), args.classes, ", ".join(map(relative, args.data)))
    data = data.of_classes(classes)
    network = args.network
    data = assign_split(data, args.seed)
    recipe = with_epochs(hybrid.RECIPES[args.recipe], args.epochs)
    tell_split(data)
    pictures = Pictures.of_set(data.part("test"))
    with hybrid.maps_of(data, network) as data:
        model = hybrid.train(network, data, recipe, args.seed, classes)
        test = data.part("test")
        probabilities = model.predict(test)
    if args.calibration:
        model = calibrated(model, args.calibration)
    tell_filtered(model, recipe)

    answers = metrics.with_missed(test.class_index(classes), probabilities, test.missed_index(classes))
    report = metrics.evaluate_predictions(*answers, classes)
    info = describe_model(model, args, recipe) | {
        "data": describe_data(data, args.data),
        "metrics": {"test": report},
    }
    shipped = shipped_beside(pictures)  # asked before --overwrite replaces it
    beside = [ask_set(SHIPPED, EmotionClassifier(shipped), pictures)] if shipped else []
    files = export.save_bundle(args.output, deployable_parts(model), info)
    write_figures(args.output, model, report, f"Test part ({', '.join(sorted(set(data.source.tolist())))})")
    print(f"test part of {', '.join(map(relative, args.data))}:\n{metrics.format_report(report, classes)}")
    if beside:
        beside.append(of_probabilities("this model", classes, pictures, probabilities))
        print(f"beside the shipped model, on the same pictures:\n{side_by_side(beside)}")
    print(
        f"wrote {relative(args.output)} ({network}): {', '.join(files)}, learning curves, "
        "confusion_matrix.png"
    )
    print(f"next: python scr/main.py --model {relative(args.output)}")


def with_epochs(recipe: hybrid.ModelRecipe, epochs: int | None) -> hybrid.ModelRecipe:
    """Return a recipe with another number of epochs, if one is given."""
    if epochs is None:
        return recipe
    return replace(
        recipe, landmarks=replace(recipe.landmarks, epochs=epochs), crop=replace(recipe.crop, epochs=epochs)
    )


def tell_split(data: LandmarkSet) -> None:
    """Say how many faces each part has, and whether they are few."""
    counts = Counter(data.split.tolist())
    note("  ".join(f"{name} {counts[name]}" for name in ("train", "val", "test")))
    if counts["train"] < 1000:
        note(
            f"only {counts['train']} faces to learn from: expect little; the shipped model had tens of "
            "thousands. To teach it one person's face, a few dozen do: python scr/train_personal.py --help"
        )


def tell_filtered(model: hybrid.TrainedModel, recipe: hybrid.ModelRecipe) -> None:
    """Say how many faces label-noise filtering left out."""
    part = model.parts.get("landmarks")
    if part and part.dropped:
        note(
            f"label-noise filtering left out {part.dropped} faces of the landmark network's (out-of-fold "
            f"confidence of their label under {recipe.landmarks.min_label_confidence:g})"
        )


def calibrated(model: hybrid.TrainedModel, path: Path) -> hybrid.TrainedModel:
    """Return the model with the temperature and threshold that were found on sources left out."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["calibration"]
        return replace(model, temperature=found["temperature"], threshold=found["threshold"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"no calibration in {relative(path)}; make it with: "
            "python scr/evaluate.py --leave-one-source-out --help"
        ) from error


def deployable_parts(model: hybrid.TrainedModel) -> dict[str, tuple]:
    """Return the parts of a trained model as `export.save_bundle` takes them."""
    parts = {}
    for name, part in model.parts.items():
        parts[name] = (
            (part.network, part.scaler)
            if name == "landmarks"
            else (crop_network.assemble(part.heads, part.temperature),)
        )
    return parts


def describe_model(model: hybrid.TrainedModel, args, recipe: hybrid.ModelRecipe) -> dict:
    """Return what the bundle says about the model and its training."""
    parts, training = {}, {"seed": args.seed}
    for name, part in model.parts.items():
        parts[name] = {"threshold": round(part.threshold, 3)}
        training |= (
            asdict(getattr(recipe, name)) if len(model.parts) == 1 else {name: asdict(getattr(recipe, name))}
        )
        if name == "landmarks":
            parts[name]["features"] = part.features
            training["doubtful"] = part.dropped
        else:
            embedding = recipe.crop.heads * recipe.crop.hidden * len(model.classes)
            parts[name]["features"] = crop_network.INPUT | {"embedding": embedding}
        training |= {"epochs_run": len(part.history["loss"]), "temperature": part.temperature}
    return {
        "name": bundle.NAME,
        "network": model.network,
        "classes": list(model.classes),
        "features": parts[next(iter(parts))].pop("features"),
        "threshold": round(model.threshold, 3),
        "temperature": model.temperature,
        "weights": model.weights,
        "calibration": relative(args.calibration) if args.calibration else "validation part",
        "parts": parts,
        "recipe": args.recipe,
        "training": training,
        "sha256": {},
    }


def write_figures(folder: Path, model: hybrid.TrainedModel, report: dict, title: str) -> None:
    """Write the learning curves of each part and the confusion matrix."""
    for name, part in model.parts.items():
        file = "learning_curves.png" if name == next(iter(model.parts)) else f"learning_curves_{name}.png"
        plots.plot_learning_curves(folder / file, part.history, f"Learning curves, {name}")
    plots.plot_confusion_matrix(
        folder / "confusion_matrix.png",
        report["confusion_matrix"],
        model.classes,
        f"{title}\nbalanced accuracy {report['balanced_accuracy']:.3f}",
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
