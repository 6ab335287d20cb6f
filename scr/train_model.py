"""Pictures, or sets of faces -> a trained model: networks, scaler, LiteRT models, JSON, figures and a page.

    python scr/train_model.py --images photos
    python scr/train_model.py --images photos --test-images other_photos
    python scr/train_model.py --data data/mine.faces --network hybrid --output models/mine
    python scr/train_model.py --data data/photos.faces --base models

The first form does it all, for a folder with one for each class: it finds the faces, leaves out copies, holds
out a fifth, trains, tests, and writes report.html beside the model: what was learned, how well, what would
help. It fine-tunes the shipped model, or trains one from scratch, or does both and keeps the one that reads
the validation part better. Run again, after a stop or with more pictures, it reads what is new.

--base fine-tunes a model: its last layer alone learns, and no more of the change is kept than loses little
elsewhere. Where nothing is gained, no model is written and the exit status is 1. The test part is read once,
after training. Two runs with one seed give the same weights.
"""

from utils.cli import make_parser, positive_int, refuse_idle, run_script, seed

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from utils.config import DATA, MODELS, SEED, UserError, from_root, note, relative
from utils.data.classes import choose_classes, list_names
from utils.data.face_set import FaceSet, concatenate, load_face_set
from utils.data.prepared import Prepared, prepare, require_enough
from utils.data.splits import assign_split, split_groups
from utils.evaluation import metrics, plots
from utils.evaluation.predictions import (
    SHIPPED,
    Pictures,
    Predictions,
    of_probabilities,
    predict_set,
    shipped_beside,
    side_by_side,
    verdict,
)
from utils.evaluation.report import write_report
from utils.model import bundle, schema
from utils.model.classifier import EmotionClassifier
from utils.training import ensemble, export
from utils.training.pretrained import add_forgetting_options, embed_set, fine_tune_model, open_pretrained

ENOUGH_FOR_SCRATCH = 100
"""Faces of each class to learn from, from which on a model from scratch may be better (models/README.md)."""
FORGETTING = 0.02
"""Balanced accuracy that fine-tuning may cost on other faces, unless the user says otherwise."""
PICTURES_ONLY = "test_images", "subject_pattern", "jobs"
NOT_WITH_BASE = "network", "recipe", "epochs", "calibration"
"""Options that do nothing without --images, and with --base."""


def build_parser():
    parser = make_parser(__doc__)
    what = parser.add_mutually_exclusive_group().add_argument
    what("--images", type=Path, metavar="DIR", help="a folder of pictures, with one for each class")
    data = [DATA / "dataset_Affectnet_balanced.faces"]
    what("--data", type=Path, nargs="+", default=data, metavar="FILE", help="sets of faces, .faces or .txt")
    add = parser.add_argument
    test = "with --images: such a folder to test on (default: a fifth of --images)"
    add("--test-images", type=Path, metavar="DIR", help=test)
    person = "with --images: where a path names the person, to keep each on one side: '(?P<subject>[^_/]+)_'"
    add("--subject-pattern", metavar="REGEX", help=person)
    jobs = "with --images: processes that read pictures"
    add("--jobs", type=positive_int, default=os.cpu_count(), help=jobs)
    network = (
        "what it sees: landmarks, crop (the face's picture) or both, hybrid, the best (default of --images)"
    )
    add("--network", choices=bundle.PARTS, help=network)
    classes = "classes to learn (default: all; of --data the four emotions, where it has them)"
    add("--classes", nargs="+", metavar="NAME", help=classes)
    recipe = "published: the README's to the letter; fine-tuned: the crop network's backbone learns, too"
    add("--recipe", choices=ensemble.RECIPES, default="default", help=recipe)
    output = "folder for the model (default: models/mine; of --images one in models with their name)"
    add("--output", type=Path, metavar="DIR", help=output)
    add("--overwrite", action="store_true", help=f"let --output {relative(MODELS)} replace the shipped model")
    add("--epochs", type=positive_int, help="most epochs (default: the recipe's)")
    calibration = "what evaluate.py --leave-one-source-out wrote (default: by the validation part)"
    add("--calibration", type=Path, metavar="JSON", help=calibration)
    add("--base", type=Path, metavar="DIR", help="fine-tune this model, such as models")
    add_forgetting_options(parser, FORGETTING, "with --base: ")
    add("--seed", type=seed, default=SEED, help="seed of split, weights and order")
    return parser


def main(args):
    args.output = args.output or MODELS / (args.images.resolve().name if args.images else "mine")
    check_options(args)
    folders = args.images, args.test_images, args.classes, args.subject_pattern, args.jobs, args.seed
    faces = prepare(*folders) if args.images else read_sets(args)
    if args.base:
        check_base(args.base, faces)
    if args.images:
        note("step 3 of 3: training and testing")
    pictures = Pictures.of_set(faces.data.part("test"))
    shipped = shipped_beside(pictures)  # read before --overwrite replaces it
    beside = [predict_set(SHIPPED, shipped, pictures)] if shipped else []
    test, how = train(args, faces)
    report, where = test.figures()["all"], ", ".join(map(relative, faces.files))
    title = f"Test part of {where}\nbalanced accuracy {report['balanced_accuracy']:.3f}"
    matrix = args.output / "confusion_matrix.png"
    plots.plot_confusion_matrix(matrix, report["confusion_matrix"], test.classes, title)
    print(f"test part of {where}:\n{metrics.format_report(report, test.classes)}")
    print(side_by_side([*beside, test]), *how, sep="\n")
    print(f"wrote {relative(args.output)}")
    command = f"python scr/main.py --model {bundle.argument_of(args.output)}"
    if args.images:
        how += [verdict(one, test) for one in beside]
        commands = [
            command,
            f"python scr/evaluate.py --images other_photos --compare models {relative(args.output)}",
            f"python scr/train_model.py --images {relative(args.images)}   # again, with more pictures",
        ]
        page = write_report(args.output, faces, test, how, commands)
        print(f"what it learned, how well, and what would help most: {relative(page)}")
    print(f"next: {command}")


def check_options(args) -> None:
    """Raise UserError where a model would be replaced, and for options that do nothing with the others."""
    if args.output.resolve() == MODELS and not args.overwrite:
        raise UserError(
            f"--output {relative(args.output)} would replace the shipped model; choose another folder, "
            f"such as {relative(MODELS / 'mine')}, or add --overwrite"
        )
    if args.base and args.output.resolve() == args.base.resolve():
        raise UserError(f"{relative(args.output)} holds the base model, which stays; choose another --output")
    refuse = partial(refuse_idle, build_parser(), args)
    if not args.images:
        refuse(PICTURES_ONLY, "without --images")
    if args.base:
        refuse(NOT_WITH_BASE, "with --base, which brings its own network and recipe")
    elif args.network or not args.images:
        refuse(("general", "max_forgetting"), "without --base")
    if args.recipe == "fine-tuned" and not args.images and args.network in (None, "landmarks"):
        raise UserError("--recipe fine-tuned is about the crop network: add --network hybrid")


def read_sets(args) -> Prepared:
    """Return the faces of sets, of the classes that are to be learned, split."""
    where = ", ".join(map(relative, args.data))
    data = concatenate([load_face_set(path) for path in args.data])
    classes = choose_classes(data.label.tolist(), args.classes, where)
    data = data.of_classes(classes)
    if args.base:
        require_enough(data, classes, where)
    data = assign_split(data, args.seed)
    counts = Counter(data.split.tolist())
    note("  ".join(f"{name} {counts[name]}" for name in ("train", "val", "test")))
    if not args.base:  # a third of what a face takes in memory, and of no use from here on
        data = replace(data, sha256=None)
    return Prepared(args.data, data, classes, Counter(data.missed.reason.tolist()))


def check_base(base: Path, faces: Prepared) -> None:
    """Raise UserError if a base model does not read a class, or needs crops that a set lacks."""
    info = bundle.load_info(base)
    ensemble.require_crops(faces.data, bundle.network_of(info))
    if unknown := [name for name in faces.classes if name not in info["classes"]]:
        # On 153 pictures of four classes a new last layer on its features had .81, from scratch .88.
        raise UserError(
            f"{relative(base)} does not read {list_names(unknown)}: train on your pictures alone "
            "(leave out --base, add --network hybrid), or name classes that it reads with --classes "
            f"({list_names(info['classes'])})"
        )


@dataclass(frozen=True)
class Trial:
    """A trained model, not written yet; `save` writes it, and returns its predictions for the test part and a
    sentence on how it came about."""

    name: str
    val_accuracy: Callable[[], float]
    save: Callable[[], tuple[Predictions, str]]


def train(args, faces: Prepared) -> tuple[Predictions, list[str]]:
    """Write a model, that of two which reads the validation part better; return its predictions for the test
    part, and how it came about, in sentences."""
    starts, how = choose_starts(args, faces)
    trials = [start(args, faces) for start in starts]
    if len(trials) > 1:
        scores = {trial.name: trial.val_accuracy() for trial in trials}
        trials.sort(key=lambda trial: -scores[trial.name])
        both = ", ".join(f"{name} {score:.1%}" for name, score in scores.items())
        how.append(f"Right on the validation part: {both}; the better one is kept.")
    test, last = trials[0].save()
    return test, [*how, last]


def choose_starts(args, faces: Prepared) -> tuple[list[Callable], list[str]]:
    """Return which ways of training suit options and pictures, and why others do not."""
    if args.base:
        return [fine_tune], []
    if args.network or not args.images:
        return [train_from_scratch], []
    known = bundle.load_info(MODELS)["classes"]
    if unknown := [name for name in faces.classes if name not in known]:
        return [train_from_scratch], [f"The shipped model does not read {list_names(unknown)}."]
    least = min(Counter(faces.data.part("train").label.tolist()).values())
    if least >= ENOUGH_FOR_SCRATCH:
        return [fine_tune, train_from_scratch], []
    why = f"Not tried from scratch, which takes {ENOUGH_FOR_SCRATCH} pictures of each class to learn from"
    return [fine_tune], [f"{why} (the fewest here: {least})."]


def fine_tune(args, faces: Prepared) -> Trial:
    """Fine-tune the base model, or the shipped one, on a set; raises UserError on saving if a base was asked
    for and nothing is gained on the test part."""
    data, place = faces.data, args.base or MODELS
    note("loading TensorFlow and the base model ...")
    embedding = embed_set(data, place)
    base = open_pretrained(place, embedding, faces.classes, alone=True)
    groups = split_groups(data)

    def tune(held_out):
        settings = args.general, args.max_forgetting, FORGETTING, held_out, args.seed
        return fine_tune_model(base, data, embedding, faces.classes, groups, *settings)

    def val_accuracy() -> float:
        trial, val = tune(data.split != "train").after, (data.split == "val")[data.split != "train"]
        report = metrics.evaluate_predictions(trial.label[val], trial.predicted[val], trial.classes)
        return report["balanced_accuracy"]

    def save() -> tuple[Predictions, str]:
        result = tune(data.split == "test")
        if args.base and result.problem:
            print(result.describe())
            raise UserError(
                f"no model is written{bundle.earlier_model(args.output)}: {result.problem}; add pictures, or "
                f"use the base model: python scr/main.py --model {relative(place)}"
            )
        about = {"name": args.output.resolve().name, "data": describe_data(data, faces.files)}
        base.save(args.output, result, about, args.seed)
        pictures = Pictures.of_set(data.part("test"))
        test = predict_set("this model", EmotionClassifier(args.output), pictures)
        name = relative(place) if args.base else "The shipped model"
        return test, f"{name} was fine-tuned: its last layer learned these pictures, and {result.kept}."

    return Trial("fine-tuned", val_accuracy, save)


def train_from_scratch(args, faces: Prepared) -> Trial:
    """Train a model from its beginning on a set."""
    network = args.network or ("hybrid" if args.images else "landmarks")
    calibration = read_calibration(args.calibration) if args.calibration else {"vocabularies": []}
    vocabularies = calibration.pop("vocabularies")
    same_network = ("weights" in calibration) == (network == "hybrid") or not calibration
    if not (same_network and all(set(one["classes"]) < set(faces.classes) for one in vocabularies)):
        raise UserError(
            f"{relative(args.calibration)} is of another network or other classes; calibrate this model: "
            "python scr/evaluate.py --leave-one-source-out --help"
        )
    recipe = ensemble.RECIPES[args.recipe]
    if args.epochs:
        parts = {name: replace(getattr(recipe, name), epochs=args.epochs) for name in ("landmarks", "crop")}
        recipe = replace(recipe, **parts)
    with ensemble.maps_of(faces.data, network) as data:
        model = ensemble.train(network, data, recipe, args.seed, faces.classes)
        model = replace(model, **calibration)
        of_parts = ensemble.calibrate_parts(model, data.part("val"), vocabularies)
        found = {name: model.predict(data.part(name)) for name in ("val", "test")[not args.images :]}
    pictures = Pictures.of_set(data.part("test"))
    test = of_probabilities("this model", faces.classes, pictures, found["test"])

    def val_accuracy() -> float:
        label = data.part("val").class_index(faces.classes)
        report = metrics.evaluate_predictions(label, found["val"].argmax(axis=1), faces.classes)
        return report["balanced_accuracy"]

    def save() -> tuple[Predictions, str]:
        from_file = from_root(args.calibration) if args.calibration else "validation part"
        about = ensemble.describe(model, recipe, args.seed, of_parts) | {
            "vocabularies": vocabularies,
            "recipe": args.recipe,
            "calibration": from_file,
            "data": describe_data(data, faces.files),
            "metrics": {"test": test.figures()["all"]},
        }
        parts = {name: part.deployable() for name, part in model.parts.items()}
        export.save_bundle(args.output, parts, about)
        for name, part in model.parts.items():
            file = "learning_curves.png" if name == next(iter(parts)) else f"learning_curves_{name}.png"
            plots.plot_learning_curves(args.output / file, part.history, f"Learning curves, {name}")
        return test, f"A model was trained from scratch, on these pictures alone ({network})."

    return Trial("from scratch", val_accuracy, save)


def read_calibration(path: Path) -> dict:
    """Return what evaluate.py found on sources left out, as `schema.read_calibration` does."""
    try:
        return schema.read_calibration(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no calibration in {relative(path)} ({error}); make it with: "
            "python scr/evaluate.py --leave-one-source-out --help"
        ) from error


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
