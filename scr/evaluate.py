"""A trained model on a labelled set -> report, confusion matrix, calibration.

    python scr/evaluate.py --images data/london
    python scr/evaluate.py --data data/training.npz --split test
    python scr/evaluate.py --leave-one-source-out --network hybrid --data data/training.npz \\
        --foreign data/london.npz data/portraits.npz --together kdef+impa_face3d

It runs the LiteRT model, the one that runs live. A picture on which no face is found counts as wrong. The
last form trains anew without each source in turn, and asks the network about it: the figure that counts.
"""

from utils.script import run_script

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.config import (
    DATA,
    MODELS,
    UserError,
    add_share_flag,
    make_parser,
    note,
    positive_int,
    relative,
    write_json,
)
from utils.data.classes import check_classes, choose_classes, list_names
from utils.data.dataset import LandmarkSet, assign_split, concatenate, load_landmarks
from utils.data.extraction import extract
from utils.data.labelled import find_labelled_images, read_ferplus
from utils.faces.features import face_box
from utils.learning import bundle, classifier, hybrid, left_out, plots
from utils.learning.metrics import (
    evaluate_predictions,
    expected_calibration_error,
    format_report,
    with_missed,
)

FACE_WIDTHS = (1, 32, 48, 64, 96, 128, 256)
"""Pixels at which the figures by face width part."""


def build_parser():
    parser = make_parser(__doc__)
    what = parser.add_argument_group("what to look at (one of the two)").add_mutually_exclusive_group(
        required=True
    )
    what.add_argument("--images", type=Path, metavar="DIR", help="any <emotion>/* tree of pictures")
    what.add_argument("--data", type=Path, nargs="+", metavar="FILE", help="landmark sets, .npz or .txt")
    parser.add_argument(
        "--labels", type=Path, metavar="CSV", help="with --images: FER+ votes instead of folder names"
    )
    parser.add_argument(
        "--split",
        choices=("all", "train", "val", "test"),
        help="with --data: the part to look at (default: test if the set is split, else all)",
    )
    parser.add_argument(
        "--model",
        default=MODELS,
        metavar="MODEL",
        help="a bundle's folder, a .tflite file, the name of a personal model, or a network of the shipped "
        "model: landmarks, crop or hybrid",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=DATA / "evaluation",
        metavar="DIR",
        help="folder for report and figures",
    )
    leave_out = parser.add_argument_group("leave one source out")
    leave_out.add_argument(
        "--leave-one-source-out",
        action="store_true",
        help="train on --data without each source and file-name prefix group in turn",
    )
    leave_out.add_argument(
        "--foreign", type=Path, nargs="+", default=[], metavar="FILE", help="sets that are only asked about"
    )
    leave_out.add_argument("--seeds", type=positive_int, default=5, help="trainings of each kind")
    leave_out.add_argument("--recipe", choices=hybrid.RECIPES, default="default", help="recipe to judge")
    leave_out.add_argument(
        "--network", choices=bundle.PARTS, default="landmarks", help="network to judge, with its parts"
    )
    leave_out.add_argument(
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
    add_share_flag(parser)
    return parser


def main(args):
    if args.leave_one_source_out:
        return leave_one_source_out(args)
    model = classifier.EmotionClassifier(args.model)
    if args.images:
        root = args.images.resolve()
        asked = check_classes(args.classes) if args.classes else None
        images, left_out = (
            read_ferplus(root, args.labels) if args.labels else find_labelled_images(root, asked)
        )
        if left_out:
            note("left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()))
        data, part = extract(images, root, root.name, args.jobs), "all"
    else:
        data, part = choose_split(concatenate([load_landmarks(path) for path in args.data]), args.split)
    labels = [*data.label.tolist(), *data.missed_label.tolist()]
    asked = choose_asked(labels, model.classes, args.classes)
    other = Counter(name for name in labels if name not in asked)
    data = data.of_classes(asked)

    label = data.class_index(model.classes)
    if model.needs_crops and data.crop is None:
        raise UserError(
            f"{relative(model.path)} looks at crops of the faces and these sets hold none; make them again: "
            "python scr/extract_landmarks.py --help, or add --model landmarks"
        )
    probabilities = model.predict(data.landmarks, data.blendshapes, crops=data.crop)
    report = {"model": relative(model.path), "part": part, **score(data, label, probabilities, model.classes)}
    title = f"{', '.join(sorted({*data.source.tolist(), *data.missed_source.tolist()}))} ({part})"
    print(f"{relative(model.path)} on {title}")
    if other:
        print(
            f"left out, {'not asked for' if args.classes else 'not a class of the model'}: "
            + ", ".join(f"{count} {name}" for name, count in sorted(other.items()))
        )
    print(format_report(report["all"], model.classes))
    print(f"calibration error (ECE, 15 bins, of the faces found) {report['ece']:.3f}")
    print_groups("source", report["sources"], model.classes)
    print_groups("face width", report["face_widths"], model.classes)

    plots.plot_confusion_matrix(
        args.output / "confusion_matrix.png",
        report["all"]["confusion_matrix"],
        model.classes,
        f"{title}\nbalanced accuracy {report['all']['balanced_accuracy']:.3f}",
    )
    plots.plot_reliability(args.output / "reliability.png", label, probabilities, report["ece"], title)
    write_json(args.output / "report.json", report)
    print(f"wrote {relative(args.output)}: report.json, confusion_matrix.png, reliability.png")


def choose_asked(labels: list[str], classes: Sequence[str], wanted: list[str] | None) -> list[str]:
    """Return the classes that pictures are asked about: those wanted, or all that model and set share.

    Says, or raises UserError with, what is missing on which side.
    """
    held = set(labels)
    asked = check_classes(wanted) if wanted else [name for name in classes if name in held]
    unknown = [name for name in asked if name not in classes]
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


def choose_split(data: LandmarkSet, split: str | None) -> tuple[LandmarkSet, str]:
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


def score(data: LandmarkSet, label: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> dict:
    """Return the figures of the whole set, of each source, and of the faces found by their width."""
    all_label, predicted = with_missed(label, probabilities, data.missed_index(classes))
    return {
        "all": evaluate_predictions(all_label, predicted, classes),
        "ece": expected_calibration_error(label, probabilities),
        "sources": score_groups(
            np.concatenate([data.source, data.missed_source]), all_label, predicted, classes
        ),
        "face_widths": score_groups(face_width_group(data), label, predicted[: len(label)], classes),
    }


def score_groups(
    group: np.ndarray, label: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]
) -> dict:
    """Return the figures of each group of faces, in order of the names (n,); nothing if they are all one."""
    names = np.unique(group).tolist()
    return (
        {
            name: evaluate_predictions(label[group == name], predicted[group == name], classes)
            for name in names
        }
        if len(names) > 1
        else {}
    )


def face_width_group(data: LandmarkSet) -> np.ndarray:
    """Return for each face found the span of pixels (n,) that its width lies in; empty where the
    picture's size is unknown."""
    width = face_box(data.landmarks)[:, 2] * data.width
    names = np.array(
        [
            "",
            *(f"{low:>4} to {high:>4} px" for low, high in zip(FACE_WIDTHS, FACE_WIDTHS[1:])),
            f"{FACE_WIDTHS[-1]:>4} px and more",
        ]
    )
    return names[np.digitize(width, FACE_WIDTHS)]


def print_groups(title: str, groups: dict, classes: tuple[str, ...]) -> None:
    """Print one line for each group."""
    for name, report in groups.items():
        recalls = "  ".join(
            f"{label} {report['recall'][label][0]:.2f}" for label in classes if label in report["recall"]
        )
        print(
            f"  {title} {name:<16} n {report['faces'] + report['missed']:>6}  balanced accuracy "
            f"{report['balanced_accuracy']:.3f}  {recalls}"
        )


def leave_one_source_out(args) -> None:
    """Print, and write as JSON, what networks that never saw a source say about it, beside what others
    say."""
    if not args.data:
        raise UserError("--leave-one-source-out trains on landmark sets; name them with --data")
    data = concatenate([load_landmarks(path) for path in args.data])
    classes = choose_classes(data.label.tolist(), args.classes, ", ".join(map(relative, args.data)))
    data = assign_split(data.of_classes(classes))
    foreign = [load_landmarks(path).of_classes(classes) for path in args.foreign]
    for part in (data, *foreign):
        hybrid.require_crops(part, args.network)
    whole, places = left_out.join_sets([data, *foreign])
    print(table_header(classes), flush=True)
    with hybrid.maps_of(whole, args.network) as whole:
        data, *foreign = (whole.select(*place) for place in places)
        rows, calibration = left_out.measure(
            data,
            foreign,
            args.network,
            hybrid.RECIPES[args.recipe],
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
