"""Landmark sets -> a trained model in models/mine: networks, scaler, LiteRT models, JSON and figures.

    python scr/train_model.py
    python scr/train_model.py --recipe published --data data/dataset_Affectnet_balanced.txt \\
        --output models/published
    python scr/train_model.py --base models --data data/photos.faces

The last form fine-tunes a model for the people and the camera of your pictures: its last layer alone learns,
and no more of the change is kept than loses little elsewhere. It wants 150 pictures of each class or more;
where it gains nothing, no model is written and the exit status is 1. The test part is read once, after
training. Two runs with one seed give the same weights.
"""

from utils.cli import make_parser, positive_int, run_script, seed

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from utils.config import DATA, MODELS, SEED, UserError, from_root, note, relative
from utils.data.classes import choose_classes, list_names
from utils.data.face_set import FaceSet, concatenate, load_face_set
from utils.data.splits import assign_split, split_groups
from utils.evaluation import metrics, plots
from utils.evaluation.predictions import (
    SHIPPED,
    Pictures,
    of_probabilities,
    predict_set,
    shipped_beside,
    side_by_side,
)
from utils.model import bundle, schema
from utils.model.classifier import mix
from utils.training import ensemble, export, networks
from utils.training.pretrained import add_forgetting_options, embed_set, fine_tune_model, open_pretrained

LEAST_OF_CLASS = 10
"""Pictures of a class that it takes to fine-tune: fewer leave none to hold out."""
FEW = 1000
"""Faces to learn from under which a model from scratch is not worth much."""
FORGETTING = 0.02
"""Balanced accuracy that fine-tuning may cost on other faces, unless the user says otherwise."""


def build_parser():
    parser = make_parser(__doc__)
    add = parser.add_argument
    data = [DATA / "dataset_Affectnet_balanced.faces"]
    add("--data", type=Path, nargs="+", default=data, metavar="FILE", help="sets of faces, .faces or .txt")
    network = "what it sees: landmarks (default), crop (the face's picture), or both, hybrid, the best"
    add("--network", choices=bundle.PARTS, help=network)
    classes = "classes to learn (default: the four emotions of a set that has them, else all it holds)"
    add("--classes", nargs="+", metavar="NAME", help=classes)
    recipe = "published: the README's to the letter; fine-tuned: the crop network's backbone learns, too"
    add("--recipe", choices=ensemble.RECIPES, default="default", help=recipe)
    add("--output", type=Path, default=MODELS / "mine", metavar="DIR", help="folder for the model")
    add("--overwrite", action="store_true", help=f"let --output {relative(MODELS)} replace the shipped model")
    add("--epochs", type=positive_int, help="most epochs (default: the recipe's)")
    calibration = "what evaluate.py --leave-one-source-out wrote (default: by the validation part)"
    add("--calibration", type=Path, metavar="JSON", help=calibration)
    add("--base", type=Path, metavar="DIR", help="fine-tune this model, such as models")
    add_forgetting_options(parser, FORGETTING, "with --base: ")
    add("--seed", type=seed, default=SEED, help="seed of split, weights and order")
    return parser


def main(args):
    if args.output.resolve() == MODELS and not args.overwrite:
        raise UserError(
            f"--output {relative(args.output)} would replace the shipped model; choose another folder, "
            f"such as {relative(MODELS / 'mine')}, or add --overwrite"
        )
    if args.base:
        fine_tune_base(args)
    else:
        train(args)


def train(args) -> None:
    """Train a model from its beginning and write it."""
    network, where = args.network or "landmarks", ", ".join(map(relative, args.data))
    if args.general or args.max_forgetting is not None:
        raise UserError("--general and --max-forgetting do nothing without --base; leave them out")
    if args.recipe == "fine-tuned" and network == "landmarks":
        raise UserError("--recipe fine-tuned is about the crop network: add --network hybrid")
    data = concatenate([load_face_set(path) for path in args.data])
    calibration = read_calibration(args.calibration) if args.calibration else {"vocabularies": []}
    classes = choose_classes(data.label.tolist(), args.classes, where)
    vocabularies = calibration.pop("vocabularies")
    same_network = ("weights" in calibration) == (network == "hybrid") or not calibration
    if not (same_network and all(set(one["classes"]) < set(classes) for one in vocabularies)):
        raise UserError(
            f"{relative(args.calibration)} is of another network or other classes; calibrate this model: "
            "python scr/evaluate.py --leave-one-source-out --help"
        )
    # Checksums are a third of what a face takes in memory, and of no use from here on.
    data = replace(assign_split(data.of_classes(classes), args.seed), sha256=None)
    recipe = ensemble.RECIPES[args.recipe]
    if args.epochs:
        parts = {name: replace(getattr(recipe, name), epochs=args.epochs) for name in ("landmarks", "crop")}
        recipe = replace(recipe, **parts)
    counts = Counter(data.split.tolist())
    note("  ".join(f"{name} {counts[name]}" for name in ("train", "val", "test")))
    if counts["train"] < FEW:
        note(
            "few faces to learn from, the shipped model had tens of thousands: to start from it, --base "
            f"{relative(MODELS)} in place of --network; for one person: python scr/train_personal.py --help"
        )
    pictures = Pictures.of_set(data.part("test"))
    with ensemble.maps_of(data, network) as data:
        model = replace(ensemble.train(network, data, recipe, args.seed, classes), **calibration)
        probabilities = model.predict(data.part("test"))
        of_parts = calibrate_parts(model, data.part("val"), vocabularies)
    predictions = of_probabilities("this model", classes, pictures, probabilities)
    report = predictions.figures()["all"]
    about = {"data": describe_data(data, args.data), "metrics": {"test": report}}
    shipped = shipped_beside(pictures)  # read before --overwrite replaces it
    beside = [predict_set(SHIPPED, shipped, pictures)] if shipped else []
    parts = {name: part.deployable() for name, part in model.parts.items()}
    about |= describe_model(model, args, recipe, of_parts) | {"vocabularies": vocabularies}
    files = export.save_bundle(args.output, parts, about)
    write_figures(args.output, model, report, f"Test part of {where}")
    print(f"test part of {where}:\n{metrics.format_report(report, classes)}")
    if beside:
        table = side_by_side([*beside, predictions])
        print(f"beside the shipped model, on the same pictures:\n{table}")
    print(f"wrote {relative(args.output)} ({network}): {', '.join(files)}, figures")
    print(f"next: python scr/main.py --model {relative(args.output)}")


def fine_tune_base(args) -> None:
    """Fine-tune the base model on a set; write the model if it reads the set's test part no worse."""
    if args.network or args.epochs or args.calibration or args.recipe != "default":
        raise UserError(
            "--base brings its own network and recipe: leave out --network, --recipe, --epochs, --calibration"
        )
    if args.output.resolve() == args.base.resolve():
        raise UserError(f"{relative(args.output)} holds the base model, which stays; choose another --output")
    where = ", ".join(map(relative, args.data))
    data, classes = choose_faces(concatenate([load_face_set(path) for path in args.data]), args, where)
    data = assign_split(data, args.seed)
    note("loading TensorFlow and the base model ...")
    embedding = embed_set(data, args.base)
    base = open_pretrained(args.base, embedding, classes)
    settings = args.general, args.max_forgetting, FORGETTING, data.split == "test", args.seed
    result = fine_tune_model(base, data, embedding, classes, split_groups(data), *settings)
    print(f"test part of {where}:\n{result.describe()}")
    if result.problem:
        raise UserError(
            f"no model is written{bundle.earlier_model(args.output)}: {result.problem}; add pictures, or use "
            f"the base model: python scr/main.py --model {relative(args.base)}"
        )
    about = {"name": args.output.name, "data": describe_data(data, args.data)}
    files = base.save(args.output, result, about, args.seed)
    print(f"wrote {relative(args.output)}: {', '.join(files)}")
    print(f"next: python scr/main.py --model {relative(args.output)}")


def choose_faces(data: FaceSet, args, where: str) -> tuple[FaceSet, tuple[str, ...]]:
    """Return the faces of a set, named by `where`, to fine-tune the base model on, and their classes.

    By default those are the classes that the base model reads, if the set has all of its default vocabulary,
    else all that the set holds. Raises UserError for classes that it does not read, too few pictures, and a
    set without crops where the model needs them.
    """
    info = bundle.load_info(args.base)
    ensemble.require_crops(data, bundle.network_of(info))
    counts = Counter(data.label.tolist())
    known = [name for name in info["classes"] if name in counts]
    usual = known if set(schema.choose_vocabulary(info)["classes"]) <= set(known) else sorted(counts)
    classes = choose_classes(counts, args.classes or usual, where)
    if unknown := [name for name in classes if name not in info["classes"]]:
        # On 153 pictures of four classes a new last layer on its features had .81, from scratch .88.
        raise UserError(
            f"{relative(args.base)} does not read {list_names(unknown)}: train on your pictures alone "
            "(leave out --base, add --network hybrid), or name classes that it reads with --classes "
            f"({list_names(info['classes'])})"
        )
    if few := [name for name in classes if counts[name] < LEAST_OF_CLASS]:
        raise UserError(
            f"fewer than {LEAST_OF_CLASS} faces of {list_names(few)} in {where}: too few to hold any out; "
            "add some (python scr/extract_landmarks.py --help), or leave them out: --classes"
        )
    return data.of_classes(classes), classes


def read_calibration(path: Path) -> dict:
    """Return what evaluate.py found on sources left out, as `schema.read_calibration` does."""
    try:
        return schema.read_calibration(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no calibration in {relative(path)} ({error}); make it with: "
            "python scr/evaluate.py --leave-one-source-out --help"
        ) from error


def calibrate_parts(
    model: ensemble.TrainedModel, val: FaceSet, vocabularies: list[dict]
) -> dict[str, list[dict]]:
    """Return the vocabularies of each part, which can be used alone, calibrated on the validation part."""
    found = {name: [] for name in model.parts}
    for classes in (one["classes"] for one in vocabularies):
        some, columns = val.of_classes(classes), [model.classes.index(name) for name in classes]
        for name, part in model.parts.items():
            probabilities = mix([(1.0, part.predict(some)[:, columns])])
            temperature, threshold = networks.calibrate(probabilities, some.class_index(classes))
            calibration = {"temperature": temperature, "threshold": round(threshold, 3)}
            found[name].append({"classes": classes} | calibration)
    return found


def describe_model(
    model: ensemble.TrainedModel, args, recipe: ensemble.ModelRecipe, vocabularies: dict[str, list[dict]]
) -> dict:
    """Return what the bundle says about the model and its training; vocabularies: of each part."""
    training = {
        name: asdict(getattr(recipe, name))
        | {"epochs_run": len(part.history["loss"]), "temperature": part.temperature, "dropped": part.dropped}
        for name, part in model.parts.items()
    }
    parts = {
        name: {
            "threshold": round(part.threshold, 3),
            "vocabularies": vocabularies[name],
            "features": part.features,
        }
        for name, part in model.parts.items()
    }
    return {
        "name": bundle.NAME,
        "network": model.network,
        "classes": list(model.classes),
        "features": parts[next(iter(parts))].pop("features"),
        "threshold": round(model.threshold, 3),
        "temperature": model.temperature,
        "weights": model.weights,
        "calibration": from_root(args.calibration) if args.calibration else "validation part",
        "parts": parts,
        "recipe": args.recipe,
        "training": {"seed": args.seed} | training,
        "sha256": {},
    }


def write_figures(folder: Path, model: ensemble.TrainedModel, report: dict, title: str) -> None:
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


def describe_data(data: FaceSet, paths: list[Path]) -> dict:
    """Return what went in: files, and counts by split, source and class."""
    counts = Counter(zip(data.split.tolist(), data.source.tolist(), data.label.tolist()))
    return {
        "files": [from_root(path) for path in paths],
        "counts": {
            f"{split}/{source}/{label}": count for (split, source, label), count in sorted(counts.items())
        },
    }


if __name__ == "__main__":
    run_script(main, build_parser())
