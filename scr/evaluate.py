"""Trained models on labelled pictures -> figures, confusion matrix, calibration, models side by side.

    python scr/evaluate.py --images data/london
    python scr/evaluate.py --images data/london --compare models models/mine
    python scr/evaluate.py --images data/london --predictions theirs.csv
    python scr/evaluate.py --data data/training.faces --split test
    python scr/evaluate.py --leave-one-source-out --network hybrid --data data/training.faces \\
        --foreign data/london.faces data/portraits.faces --together kdef+impa_face3d

Pictures are read as main.py reads them (test-time augmentation; the largest face counts); the faces of a set
were read once, when it was made, unless --reread is given. A picture on which no face is found counts as
wrong. A model of yours is compared with the shipped one. The last form trains anew without each source in
turn, and asks the network about it.
"""

from utils.cli import add_trust_flag, make_parser, positive_int, run_script

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.config import DATA, EMOTIONS, MODELS, UserError, note, relative
from utils.data.classes import check_classes, choose_classes, list_names
from utils.data.face_set import FaceSet, concatenate, load_face_set
from utils.data.image_folder import find_labelled_images, read_ferplus
from utils.data.splits import assign_split
from utils.evaluation import plots
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
)
from utils.files import write_json
from utils.model import bundle
from utils.model.classifier import EmotionClassifier
from utils.training import ensemble
from utils.training import leave_one_source_out as leave_out


def build_parser():
    parser = make_parser(__doc__)
    what = parser.add_argument_group("what to look at (one of the two)").add_mutually_exclusive_group(
        required=True
    )
    what.add_argument("--images", type=Path, metavar="DIR", help="any <emotion>/* tree of pictures")
    what.add_argument("--data", type=Path, nargs="+", metavar="FILE", help="sets of faces, .faces or .txt")
    parser.add_argument(
        "--labels", type=Path, metavar="CSV", help="with --images: FER+ votes instead of folder names"
    )
    parser.add_argument(
        "--split",
        choices=("all", "train", "val", "test"),
        help="with --data: the part to look at (default: test if the set is split, else all)",
    )
    parser.add_argument(
        "--reread",
        action="store_true",
        help="with --data: read the set's pictures, data/SOURCE/PATH, again as main.py does",
    )
    whom = parser.add_argument_group("whom to ask").add_mutually_exclusive_group()
    whom.add_argument(
        "--model",
        default=MODELS,
        metavar="MODEL",
        help="a bundle's folder, a .tflite file, the name of a personal model, or a network of the shipped "
        "model: landmarks, crop or hybrid",
    )
    whom.add_argument(
        "--compare", nargs="+", metavar="MODEL", help="several models, each against the first of them"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="tables of what others answered, .csv or .jsonl with the columns source (the picture) and "
        "emotion, such as main.py --output writes; asked in place of --model, or beside --compare",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=DATA / "evaluation",
        metavar="DIR",
        help="folder for the reports, a folder in it for each model",
    )
    left_out = parser.add_argument_group("leave one source out")
    left_out.add_argument(
        "--leave-one-source-out",
        action="store_true",
        help="train on --data without each source and file-name prefix group in turn",
    )
    left_out.add_argument(
        "--foreign", type=Path, nargs="+", default=[], metavar="FILE", help="sets that are only asked about"
    )
    left_out.add_argument("--seeds", type=positive_int, default=5, help="trainings of each kind")
    left_out.add_argument("--recipe", choices=ensemble.RECIPES, default="default", help="recipe to judge")
    left_out.add_argument(
        "--network", choices=bundle.PARTS, default="landmarks", help="network to judge, with its parts"
    )
    left_out.add_argument(
        "--together",
        nargs="+",
        default=[],
        metavar="A+B",
        help="sources to leave out together as well, such as kdef+impa_face3d",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="classes to ask about, or with --leave-one-source-out to train on (default: those that model "
        "and pictures have in common; the four emotions of sets that have them, else all that they hold)",
    )
    parser.add_argument(
        "--jobs", type=positive_int, default=os.cpu_count(), help="worker processes for --images"
    )
    add_trust_flag(parser)
    return parser


def main(args):
    if args.leave_one_source_out:
        return leave_one_source_out(args)
    models = open_models(args)
    pictures, part = load_pictures(args)
    asked = choose_asked(pictures.label.tolist(), models, args.classes)
    tell_left_out(pictures, asked, bool(args.classes))
    pictures = pictures.of_classes(asked)
    answers = [read_predictions(path, pictures) for path in args.predictions]
    answers += [ask(path, model, pictures, args.jobs) for path, model in models]
    answers = with_own_names(answers)
    title = f"{', '.join(sorted(set(pictures.source.tolist())))} ({part})"
    for one in answers:
        text = report(one, title, args.output / one.system, part)
        if len(answers) == 1:
            print(text)
    if len(answers) == 1:
        answers = with_shipped(answers, models, pictures, args.jobs)
    if len(answers) > 1 and len(pictures) > 1:
        print(f"on {title}, {len(pictures):,} pictures:\n{side_by_side(answers)}")
    print(f"wrote {relative(args.output)}: a folder for each model with report.txt, report.json and figures")


def open_models(args) -> list[tuple[Path | str, EmotionClassifier]]:
    """Return the models that are to be asked, each by its name as given."""
    wanted = args.compare or ([] if args.predictions else [args.model])
    return [(path, EmotionClassifier(path)) for path in wanted]


def load_pictures(args) -> tuple[Pictures, str]:
    """Return the labelled pictures, and the name of the part of the set that they are."""
    if args.images:
        root = args.images.resolve()
        asked = check_classes(args.classes) if args.classes else None
        images, others = read_ferplus(root, args.labels) if args.labels else find_labelled_images(root, asked)
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
    """Return the part of a set to look at, and its name."""
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


def choose_asked(labels: list[str], models: list, wanted: list[str] | None) -> list[str]:
    """Return the classes that pictures are asked about: those wanted, or all that models and pictures share.

    Says, or raises UserError with, what is missing on which side.
    """
    held = set(labels)
    if models:
        classes = [name for name in models[0][1].classes if all(name in one.classes for _, one in models)]
    else:
        classes = [name for name in EMOTIONS if name in held] or sorted(held)
    asked = check_classes(wanted) if wanted else [name for name in classes if name in held]
    unknown = [name for name in asked if name not in classes] if models else []
    absent = [name for name in asked if name not in held]
    if not asked or unknown or absent:
        raise UserError(
            f"the model reads {list_names(classes)}, the pictures show {list_names(sorted(held))}: "
            + "; ".join(
                [f"the model lacks {list_names(unknown)}"] * bool(unknown)
                + [f"the pictures lack {list_names(absent)}"] * bool(absent)
                or ["they have nothing in common"]
            )
        )
    if not wanted and (absent := [name for name in classes if name not in held]):
        note(f"no picture of {list_names(absent)}, which the model also reads; its answers may still be that")
    return list(asked)


def tell_left_out(pictures: Pictures, asked: Sequence[str], wanted: bool) -> None:
    """Say how many pictures of which labels are not asked about."""
    if other := Counter(name for name in pictures.label.tolist() if name not in asked):
        counts = ", ".join(f"{count} {name}" for name, count in sorted(other.items()))
        note(f"left out, {'not asked for' if wanted else 'not a class of the model'}: {counts}")


def ask(path: Path | str, model: EmotionClassifier, pictures: Pictures, jobs: int) -> Predictions:
    """Return what a model answers: to the faces of a set, or to picture files, read as main.py reads them."""
    name = system_name(path)
    if pictures.files is not None:
        return ask_live(name, str(path), model.classes, pictures, jobs)
    if model.needs_crops and pictures.faces.crop is None:
        raise UserError(
            f"{relative(model.path)} looks at crops of the faces and these sets hold none; make them again: "
            "python scr/extract_landmarks.py --help, or add --model landmarks"
        )
    return predict_set(name, model, pictures)


def system_name(path: Path | str) -> str:
    """Return what a model is called here: `shipped`, or its folder's, file's or network's own name."""
    return SHIPPED if Path(path).resolve() == MODELS else Path(path).resolve().stem


def ask_live(name: str, model: str, classes: tuple[str, ...], pictures: Pictures, jobs: int) -> Predictions:
    """Return what a model answers to the largest face of each picture, by main.py's own way."""
    from tqdm import tqdm

    from utils.app.pipeline import FaceReader, read_pictures
    from utils.video.sources import InputFile

    files = [InputFile(name, path, True) for name, path in zip(pictures.name.tolist(), pictures.files)]
    answer = np.full(len(files), MISSED)
    confidence, width = np.full(len(files), np.nan), np.zeros(len(files))
    reader = FaceReader(model, max_faces=1)
    results = tqdm(read_pictures(reader, files, jobs), total=len(files), unit="img", desc=name)
    for number, result in enumerate(results):
        if result.problem:
            note(result.problem)
        if result.faces:
            face = result.faces[0]
            answer[number] = face.probabilities.argmax()
            confidence[number], width[number] = face.confidence, face.box[2]
    return Predictions(
        name, classes, label_index(pictures, classes), answer, confidence, pictures.source, width
    )


def with_shipped(
    answers: list[Predictions], models: list, pictures: Pictures, jobs: int
) -> list[Predictions]:
    """Return the answers of one model and, before them, the shipped model's if that is another."""
    if not models or models[0][1].path.resolve() == MODELS:
        return answers
    shipped = shipped_beside(pictures)
    if shipped is None:
        return answers
    return [replace(ask(shipped, EmotionClassifier(shipped), pictures, jobs), system=SHIPPED), *answers]


def with_own_names(answers: list[Predictions]) -> list[Predictions]:
    """Return answers of which no two systems have the same name."""
    named = []
    for one in answers:
        same = sum(one.system == other.system for other in answers[: len(named)])
        named.append(replace(one, system=f"{one.system}-{same + 1}") if same else one)
    return named


def report(answers: Predictions, title: str, folder: Path, part: str) -> str:
    """Write figures and plots of a system's answers into a folder; return the figures as text."""
    figures = answers.figures()
    text = f"{answers.system} on {title}\n{describe(answers, figures)}"
    balanced = f"balanced accuracy {figures['all']['balanced_accuracy']:.3f}"
    plots.plot_confusion_matrix(
        folder / "confusion_matrix.png",
        figures["all"]["confusion_matrix"],
        answers.classes,
        f"{answers.system}: {title}\n{balanced}",
    )
    sure = answers.rated
    if sure.any():
        plots.plot_reliability(
            folder / "reliability.png",
            answers.confidence[sure],
            answers.right[sure],
            figures["ece"],
            f"{answers.system}: {title}",
        )
    write_json(folder / "report.json", {"model": answers.system, "part": part, **figures})
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
    return text


def describe(answers: Predictions, figures: dict) -> str:
    """Return the figures as text; of one picture, what was answered."""
    if len(answers.label) == 1:
        (label,), (answer,), (confidence,) = answers.label, answers.predicted, answers.confidence
        said = "no face" if answer == MISSED else f"{answers.classes[answer]} {confidence:.0%}"
        return f"one picture of {answers.classes[label]}: {said}, {'right' if answer == label else 'wrong'}"
    lines = [format_report(figures["all"], answers.classes)]
    if figures["ece"] is not None:
        lines.append(f"calibration error (ECE, 15 bins, of the faces found) {figures['ece']:.3f}")
    lines += format_groups("source", figures["sources"], answers.classes)
    return "\n".join(lines + format_groups("face width", figures["face_widths"], answers.classes))


def format_groups(title: str, groups: dict, classes: tuple[str, ...]) -> list[str]:
    """Return one line for each group."""
    return [
        f"  {title} {name:<16} n {row['faces'] + row['missed']:>6}  balanced accuracy "
        f"{row['balanced_accuracy']:.3f}  "
        + "  ".join(f"{label} {row['recall'][label][0]:.2f}" for label in classes if label in row["recall"])
        for name, row in groups.items()
    ]


def leave_one_source_out(args) -> None:
    """Print, and write as JSON, what networks that never saw a source say about it, beside what others
    say."""
    if not args.data:
        raise UserError("--leave-one-source-out trains on landmark sets; name them with --data")
    data = concatenate([load_face_set(path) for path in args.data])
    classes = choose_classes(data.label.tolist(), args.classes, ", ".join(map(relative, args.data)))
    data = assign_split(data.of_classes(classes))
    foreign = [load_face_set(path).of_classes(classes) for path in args.foreign]
    for part in (data, *foreign):
        ensemble.require_crops(part, args.network)
    whole, places = leave_out.join_sets([data, *foreign])
    print(table_header(classes), flush=True)
    with ensemble.maps_of(whole, args.network) as whole:
        data, *foreign = (whole.select(*place) for place in places)
        rows, calibration = leave_out.measure(
            data,
            foreign,
            args.network,
            ensemble.RECIPES[args.recipe],
            args.seeds,
            classes,
            args.together,
            lambda row: print(format_row(row, classes), flush=True),
        )
    if calibration:
        print_calibration(calibration)
    path = args.output / f"leave_one_source_out_{args.recipe}_{args.network}.json"
    write_json(path, {"rows": rows, "calibration": calibration, "classes": list(classes)})
    print(f"wrote {relative(path)}; train_model.py --calibration takes temperature and threshold from it")


def table_header(classes: tuple[str, ...]) -> str:
    """Return the head of the table in models/README.md."""
    names = ["source", "kind", "network", "pictures", "balanced accuracy", *classes, "ECE"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def format_row(row: dict, classes: tuple[str, ...]) -> str:
    """Return a row of the table in models/README.md; the ECE is that of the network as it was trained."""
    recalls = [f"{row['recall'][name]:.2f}" if name in row["recall"] else "" for name in classes]
    low, high = row["interval"]
    return (
        f"| {row['source']} | {row['kind']} | {row['network']} | {row['faces'] + row['missed']:,} | "
        f"{row['balanced_accuracy']:.3f} ({low:.3f}-{high:.3f}) | {' | '.join(recalls)} | {row['ece']:.3f} |"
    )


def print_calibration(calibration: dict) -> None:
    """Print how sure the network is of sources left out, with temperature and threshold of the other ones."""
    print(
        f"calibrated on sources left out: temperature {calibration['temperature']:.2f}, uncertain under "
        f"{calibration['threshold']:.2f}; mean ECE {calibration['mean_ece']:.3f}"
    )
    print(
        "| source left out | ECE | answered | of these right | right if all are answered |\n"
        "|---|---|---|---|---|"
    )
    for name, row in calibration["sources"].items():
        print(
            f"| {name} | {row['ece']:.3f} | {row['answered']:.0%} | {row['right']:.0%} | "
            f"{row['right_if_always_answered']:.0%} |"
        )


if __name__ == "__main__":
    run_script(main, build_parser())
