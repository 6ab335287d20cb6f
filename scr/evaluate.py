"""Trained models on labelled pictures -> figures, confusion matrix, calibration, models side by side.

    python scr/evaluate.py --images data/london
    python scr/evaluate.py --images data/london --compare models models/mine
    python scr/evaluate.py --images data/london --predictions theirs.csv
    python scr/evaluate.py --images data/london --groups people.csv sex age
    python scr/evaluate.py --data data/training.faces --split test
    python scr/evaluate.py --leave-one-source-out --network hybrid --data data/training.faces \\
        --recipe fine-tuned --together affectnet+kdef fer2013+impa_face3d rafdb+cfee

Pictures are read as main.py reads them (the largest face counts, by its likeliest class, however uncertain);
the faces of a set were read once, when it was made, unless --reread is given. A picture on which no face is
found counts as wrong. A model of yours is compared with the shipped one. Each run is kept, in a folder of its
own. The last form trains anew without each source in turn, and judges the network by it.
"""

from utils.cli import add_trust_flag, make_parser, positive_int, refuse_idle, run_script

import importlib.metadata
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.config import DATA, EMOTIONS, MODELS, VERSION, UserError, note, relative
from utils.data.classes import check_classes, choose_classes, list_names
from utils.data.face_set import FaceSet, concatenate, load_face_set
from utils.data.image_folder import find_labelled_images, read_ferplus
from utils.data.splits import assign_split
from utils.evaluation import plots
from utils.evaluation.groups import describe_groups, group_figures, read_groups
from utils.evaluation.metrics import MISSED, format_report
from utils.evaluation.predictions import (
    SHIPPED,
    Pictures,
    Predictions,
    label_index,
    predict_set,
    read_predictions,
    shipped_beside,
    side_by_side,
    tell_seen,
)
from utils.files import sha256_of, write_json
from utils.model.bundle import has_info, load_info
from utils.model.classifier import EmotionClassifier
from utils.model.schema import PARTS
from utils.training import ensemble
from utils.training import leave_one_source_out as leave_out

MODELS_ONLY = ("model", "compare", "predictions", "groups", "split", "reread", "jobs")
LEFT_OUT_ONLY = ("foreign", "seeds", "recipe", "network", "together", "drawn_faces")
"""Options that do nothing with, and without, --leave-one-source-out."""


def build_parser():
    parser = make_parser(__doc__)
    add = parser.add_argument_group("pictures (one of the two)").add_mutually_exclusive_group(required=True)
    add.add_argument("--images", type=Path, metavar="DIR", help="any <emotion>/* tree of pictures")
    add.add_argument("--data", type=Path, nargs="+", metavar="FILE", help="sets of faces, .faces or .txt")
    add = parser.add_argument_group("models").add_mutually_exclusive_group().add_argument
    model = "a .tflite file, a model's folder, name, or network (landmarks, crop, hybrid, FOLDER:NETWORK)"
    add("--model", default=MODELS, help=model)
    add("--compare", nargs="+", metavar="MODEL", help="several models, each against the first of them")
    add = parser.add_argument
    table = "tables of other programs with the columns source (the picture) and emotion, and perhaps"
    table += " confidence, width and height, as main.py --output writes them"
    add("--predictions", type=Path, nargs="+", default=[], metavar="FILE", help=table)
    add("--labels", type=Path, metavar="CSV", help="with --images: FER+ votes instead of folder names")
    groups = "table that names pictures in its first column: judge the groups that its other COLUMNs tell"
    add("--groups", nargs="+", metavar=("TABLE", "COLUMN"), help=groups)
    split = "with --data: the part to read (default: test if the set is split, else all)"
    add("--split", choices=("all", "train", "val", "test"), help=split)
    reread = "with --data: read the set's pictures, data/SOURCE/PATH, again as main.py does"
    add("--reread", action="store_true", help=reread)
    classes = "classes to judge, or to train on (default: those that model and pictures have in common); the"
    classes += " model is read out by its smallest vocabulary that holds them"
    add("--classes", nargs="+", metavar="NAME", help=classes)
    add("--jobs", type=positive_int, default=os.cpu_count(), help="processes that read pictures")
    output = "folder for the reports; each run gets a folder in it, by set and date"
    add("--output", type=Path, default=DATA / "evaluation", metavar="DIR", help=output)
    add_trust_flag(parser)
    add = parser.add_argument_group("leave one source out").add_argument
    out = "train on --data without each source in turn"
    add("--leave-one-source-out", action="store_true", help=out)
    add("--foreign", type=Path, nargs="+", default=[], metavar="FILE", help="sets that are never trained on")
    add("--seeds", type=positive_int, default=1, help="trainings of each round")
    add("--recipe", choices=ensemble.RECIPES, default="default", help="recipe to judge")
    add("--network", choices=PARTS, default="landmarks", help="network to judge, with its parts")
    together = "sources to leave out in one round, such as kdef+impa_face3d (default: each alone)"
    add("--together", nargs="+", default=[], metavar="A+B", help=together)
    drawn = "with --recipe fine-tuned: faces to fine-tune on in a round (default: the recipe's)"
    add("--drawn-faces", type=positive_int, metavar="N", help=drawn)
    return parser


def main(args):
    check_options(args)
    if args.leave_one_source_out:
        return leave_one_source_out(args)
    paths = args.compare or ([] if args.predictions else [args.model])
    models = {path: EmotionClassifier(path) for path in paths}
    pictures, part = load_pictures(args)
    classes = choose_judged(pictures.label.tolist(), list(models.values()), args.classes)
    tell_left_out(pictures, classes, bool(args.classes))
    pictures = pictures.of_classes(classes)
    for path, model in models.items():
        if part != "test" and has_info(model.path):
            tell_seen(system_name(path), load_info(model.path), pictures)
    groups = read_groups(Path(args.groups[0]), args.groups[1:], pictures) if args.groups else {}
    systems = [read_predictions(path, pictures) for path in args.predictions]
    systems += [predict(path, model, pictures, args.jobs) for path, model in models.items()]
    systems = with_own_names(systems)
    sources = sorted(set(pictures.source.tolist()))
    folder = args.output / f"{'+'.join(sources)[:100]} {time.strftime('%Y-%m-%d %H.%M.%S')}"
    run = describe_run(args, models, pictures, part)
    for one in systems:
        text = report(one, f"{', '.join(sources)} ({part})", folder / one.system, run, groups)
        if len(systems) == 1 or args.groups:
            print(text)
    if len(systems) == 1 and models:
        systems = [*predict_shipped(*models.values(), pictures, args.jobs), *systems]
    if len(systems) > 1 and len(pictures) > 1:
        print(f"on {', '.join(sources)} ({part}), {len(pictures):,} pictures:\n{side_by_side(systems)}")
    print(f"wrote {relative(folder)}: a folder for each model with report.txt, report.json and figures")


def check_options(args) -> None:
    """Raise UserError for options that do nothing with the others."""
    if args.leave_one_source_out:
        refuse_idle(build_parser(), args, MODELS_ONLY, "with --leave-one-source-out")
    else:
        refuse_idle(build_parser(), args, LEFT_OUT_ONLY, "without --leave-one-source-out")
    if args.images:
        refuse_idle(build_parser(), args, ("split", "reread"), "with --images")
    else:
        refuse_idle(build_parser(), args, ("labels",), "with --data")
        if not args.reread:
            refuse_idle(build_parser(), args, ("jobs",), "with --data, unless --reread is given")
    if args.leave_one_source_out and not args.data:
        raise UserError("--leave-one-source-out trains on sets of faces; name them with --data")


def load_pictures(args) -> tuple[Pictures, str]:
    """Return the labelled pictures, and the name of the part of the set that they are."""
    if args.images:
        root = args.images.resolve()
        wanted = check_classes(args.classes) if args.classes else None
        found = read_ferplus(root, args.labels) if args.labels else find_labelled_images(root, wanted)
        images, others = found
        if others:
            note("left out: " + ", ".join(f"{count} {reason}" for reason, count in others.most_common()))
        files = [image.path for image in images]
        names = [f"{root.name}/{path.relative_to(root).as_posix()}" for path in files]
        labels = np.array([image.label for image in images])
        return Pictures(np.array(names), labels, np.full(len(files), root.name), files=files), "all"
    data, part = choose_split(concatenate([load_face_set(path) for path in args.data]), args.split)
    pictures = Pictures.of_set(data)
    if not args.reread:
        return pictures, part
    files = [DATA / name for name in pictures.name.tolist()]
    if absent := [path for path in files if not path.is_file()]:
        raise UserError(
            f"{len(absent)} pictures of the set are not here, such as {relative(absent[0])}; put them "
            "there, or leave --reread out"
        )
    return replace(pictures, faces=None, files=files), part


def choose_split(data: FaceSet, split: str | None) -> tuple[FaceSet, str]:
    """Return the part of a set to read, and its name."""
    if split is None:
        split = "test" if (data.split == "test").any() else "all"
    if split == "all":
        return data, split
    if not (data.split == split).any():
        raise UserError(
            f"the set has no part '{split}'; leave --split out, or split it with: "
            "python scr/balance_dataset.py"
        )
    return data.part(split), split


def choose_judged(labels: list[str], models: list[EmotionClassifier], wanted: list[str] | None) -> list[str]:
    """Return the classes that are judged: those wanted, or all that models and pictures share; each model is
    read out by as few as hold these.

    Says, or raises UserError with, what is missing on which side.
    """
    held = set(labels)
    if models:
        known = [set(one.network_classes) for one in models]
        classes = [name for name in models[0].network_classes if all(name in one for one in known)]
    else:
        classes = [name for name in EMOTIONS if name in held] or sorted(held)
    judged = list(check_classes(wanted)) if wanted else [name for name in classes if name in held]
    unknown = [name for name in judged if name not in classes] if models else []
    absent = [name for name in judged if name not in held]
    if not judged or unknown or absent:
        lacks = [f"the model lacks {list_names(unknown)}"] if unknown else []
        lacks += [f"the pictures lack {list_names(absent)}"] if absent else []
        raise UserError(
            f"the model reads {list_names(classes)}, the pictures show {list_names(sorted(held))}: "
            f"{'; '.join(lacks) or 'they have nothing in common'}"
        )
    for model in models:
        model.narrow_to(judged)
    read = [name for name in classes if any(name in one.classes for one in models)]
    if not wanted and (absent := [name for name in read if name not in held]):
        note(f"no picture of {list_names(absent)}, which the model also reads and may still predict")
    return judged


def tell_left_out(pictures: Pictures, judged: Sequence[str], wanted: bool) -> None:
    """Say how many pictures of which labels are not judged."""
    if other := Counter(name for name in pictures.label.tolist() if name not in judged):
        counts = ", ".join(f"{count} {name}" for name, count in sorted(other.items()))
        note(f"left out, {'not among --classes' if wanted else 'not a class of the model'}: {counts}")


def predict(path: Path | str, model: EmotionClassifier, pictures: Pictures, jobs: int) -> Predictions:
    """Return what a model predicts for the faces of a set, or for files, read as main.py reads them."""
    name = SHIPPED if model.path == MODELS else system_name(path)
    if pictures.files is not None:
        return predict_files(name, model, pictures, jobs)
    if model.needs_crops and pictures.faces.crop is None:
        raise UserError(
            f"{relative(model.path)} needs crops of the faces and these sets hold none; make them again: "
            "python scr/extract_landmarks.py --help, or add --model landmarks"
        )
    return predict_set(name, model, pictures)


def system_name(path: Path | str) -> str:
    """Return what a model is called here: its folder's, file's or network's own name."""
    place = Path(path).resolve()
    return (place.stem if place.is_file() else place.name).replace(":", "-")


def predict_files(name: str, model: EmotionClassifier, pictures: Pictures, jobs: int) -> Predictions:
    """Return what a model predicts for the largest face of each picture, by main.py's own way."""
    from tqdm import tqdm

    from utils.app.pipeline import FaceReader, read_pictures
    from utils.video.frames import InputFile

    files = [InputFile(name, path, True) for name, path in zip(pictures.name.tolist(), pictures.files)]
    predicted = np.full(len(files), MISSED)
    confidence, width = np.full(len(files), np.nan), np.zeros(len(files))
    reader = FaceReader(str(model.path), max_faces=1, classes=model.classes)
    results = tqdm(read_pictures(reader, files, jobs), total=len(files), unit="img", desc=name)
    for number, result in enumerate(results):
        if result.problem:
            note(result.problem)
        if result.faces:  # its likeliest class, not its emotion, which may be `uncertain`
            face = result.faces[0]
            likeliest = max(face.probabilities, key=face.probabilities.get)
            predicted[number] = model.classes.index(likeliest)
            confidence[number], width[number] = face.probabilities[likeliest], face.box[2]
    index = label_index(pictures, model.classes)
    return Predictions(name, model.classes, index, predicted, confidence, pictures.source, width)


def predict_shipped(model: EmotionClassifier, pictures: Pictures, jobs: int) -> list[Predictions]:
    """Return the shipped model's predictions, to compare another model with."""
    if model.path.resolve() == MODELS or (shipped := shipped_beside(pictures)) is None:
        return []
    return [replace(predict(MODELS, shipped, pictures, jobs), system=SHIPPED)]


def with_own_names(systems: list[Predictions]) -> list[Predictions]:
    """Return predictions of which no two systems have the same name."""
    named = []
    for one in systems:
        same = sum(one.system == other.system for other in systems[: len(named)])
        named.append(replace(one, system=f"{one.system}-{same + 1}") if same else one)
    return named


def describe_run(args, models: dict[Path | str, EmotionClassifier], pictures: Pictures, part: str) -> dict:
    """Return what a report keeps of how it was made: pictures, models and versions."""
    inputs = [args.images] if args.images else args.data
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "pictures": {"from": list(map(relative, inputs)), "part": part, "number": len(pictures)},
        "models": {str(path): model.sha256 for path, model in models.items()},
        "predictions": {relative(path): sha256_of(path) for path in args.predictions},
        "versions": {"emotion-detection": VERSION}
        | {name: importlib.metadata.version(name) for name in ("ai-edge-litert", "numpy", "opencv-python")},
    }


def report(predictions: Predictions, title: str, folder: Path, run: dict, groups: dict) -> str:
    """Write figures and plots of a system's predictions into a folder; return the figures as text."""
    figures, name = predictions.figures(), predictions.system
    text = f"{name} on {title}\n{describe(predictions, figures)}"
    groups = {"source": predictions.source, "face width": predictions.width_span} | groups
    if found := group_figures(predictions, groups):
        text += f"\n{describe_groups(found, predictions.classes)}"
    matrix, balanced = figures["all"]["confusion_matrix"], figures["all"]["balanced_accuracy"]
    heading = f"{name}: {title}\nbalanced accuracy {balanced:.3f}"
    plots.plot_confusion_matrix(folder / "confusion_matrix.png", matrix, predictions.classes, heading)
    if (rated := predictions.rated).any():
        confidence, right = predictions.confidence[rated], predictions.right[rated]
        path = folder / "reliability.png"
        plots.plot_reliability(path, confidence, right, figures["ece"], f"{name}: {title}")
    write_json(folder / "report.json", {"model": name, "run": run, **figures, "groups": found})
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
    return text


def describe(predictions: Predictions, figures: dict) -> str:
    """Return the figures as text; of one picture, the prediction."""
    classes = predictions.classes
    if len(predictions.label) == 1:
        label, predicted = int(predictions.label[0]), int(predictions.predicted[0])
        confidence = predictions.confidence[0]
        found = "no face" if predicted == MISSED else f"{classes[predicted]} ({confidence:.0%})"
        return f"one picture of {classes[label]}: {found}, {'right' if predicted == label else 'wrong'}"
    lines = [format_report(figures["all"], classes)]
    if figures["ece"] is not None:
        lines.append(f"calibration error (ECE, 15 bins, of the faces found) {figures['ece']:.3f}")
    return "\n".join(lines)


def leave_one_source_out(args) -> None:
    """Print, and write as JSON, figures of a model on sources that it never saw, the mix and calibration."""
    data = concatenate([load_face_set(path) for path in args.data])
    classes = choose_classes(data.label.tolist(), args.classes, ", ".join(map(relative, args.data)))
    data = assign_split(data.of_classes(classes))
    foreign = [load_face_set(path).of_classes(classes) for path in args.foreign]
    recipe = ensemble.RECIPES[args.recipe]
    if args.drawn_faces:
        recipe = replace(recipe, crop=replace(recipe.crop, fine_tuned_faces=args.drawn_faces))
    run = leave_out.Run(args.network, recipe, args.seeds, classes)
    found = run.all_rounds(data, foreign, args.together)
    path = args.output / f"leave_one_source_out_{args.recipe}_{args.network}.json"
    written = leave_out.report(found, args.network, classes, recipe.weights)
    for source, mistakes in written["mistakes"].items():
        some = data.select(data.source == source).select(list(mistakes))
        if some.crop is not None and mistakes:
            page = args.output / f"mistakes_{source}.png"
            title = f"{source}, left out: the surest mistakes (label: prediction)"
            plots.plot_faces(page, some.crop[:], list(mistakes.values()), title)
            print(f"wrote {relative(page)}; it holds faces")
    write_json(path, written)
    print(f"wrote {relative(path)}, for train_model.py --calibration")


if __name__ == "__main__":
    run_script(main, build_parser())
