"""A trained model on a labelled set -> report, confusion matrix, calibration.

    python scr/evaluate.py --images data/london
    python scr/evaluate.py --data data/training.npz --split test
    python scr/evaluate.py --leave-one-source-out --data data/training.npz --foreign data/london.npz data/portraits.npz

It runs the LiteRT model, the one that runs live. A picture on which no face is found counts as wrong. The
last form trains anew without each source in turn, and asks the network about it: the figure that counts.
"""

from utils.script import run_script

import os
from collections import Counter
from pathlib import Path

import numpy as np

from utils.config import (
    DATA,
    EMOTIONS,
    MODELS,
    UserError,
    add_share_flag,
    make_parser,
    note,
    positive_int,
    relative,
    write_json,
)
from utils.data.dataset import LandmarkSet, assign_split, concatenate, family, load_landmarks
from utils.data.extraction import extract
from utils.data.labelled import find_labelled_images, read_ferplus
from utils.faces.features import face_box
from utils.learning import classifier, plots, training
from utils.learning.metrics import (
    answer_threshold,
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
        "--model", default=MODELS, metavar="MODEL", help="bundle folder, .tflite file or personal model"
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
    leave_out.add_argument("--recipe", choices=training.RECIPES, default="default", help="recipe to judge")
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
        images, left_out = read_ferplus(root, args.labels) if args.labels else find_labelled_images(root)
        if left_out:
            note("left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()))
        data, part = extract(images, root, root.name, args.jobs), "all"
    else:
        data, part = choose_split(concatenate([load_landmarks(path) for path in args.data]), args.split)
    other = Counter(name for name in data.label.tolist() if name not in model.classes)
    data = data.of_classes(model.classes)
    if len(data) + len(data.missed_label) == 0:
        raise UserError(f"nothing to evaluate: no picture labelled {', '.join(model.classes)}")

    label = data.class_index(model.classes)
    probabilities = model.predict(data.landmarks, data.blendshapes)
    report = {"model": relative(model.path), "part": part, **score(data, label, probabilities, model.classes)}
    title = f"{', '.join(sorted({*data.source.tolist(), *data.missed_source.tolist()}))} ({part})"
    print(f"{relative(model.path)} on {title}")
    if other:
        print(
            "left out, not a class of the model: "
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


def choose_split(data: LandmarkSet, split: str | None) -> tuple[LandmarkSet, str]:
    """Return the part of a set to look at, and its name."""
    if split is None:
        split = "test" if (data.split == "test").any() else "all"
    if split == "all":
        return data, split
    if not (data.split == split).any():
        raise UserError(
            f"the set has no part '{split}'; leave --split out, or split it with: python scr/balance_dataset.py"
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
    data = assign_split(concatenate([load_landmarks(path) for path in args.data]).of_classes(EMOTIONS))
    foreign = [load_landmarks(path).of_classes(EMOTIONS) for path in args.foreign]
    report = []
    for left_out in [None, *sources_to_leave_out(data)]:
        seen = (
            data
            if left_out is None
            else data.select(~of_source(data, left_out), ~of_source(data, left_out, missed=True))
        )
        asked = (
            [only(data, name).part("test") for name in sorted(set(data.source.tolist()))] + foreign
            if left_out is None
            else [only(data, left_out)]
        )
        scores = [seed_scores(seen, asked, training.RECIPES[args.recipe], seed) for seed in range(args.seeds)]
        for number, part in enumerate(asked):
            name = left_out or ", ".join(sorted(set(part.source.tolist())))
            kind = (
                "left out" if left_out else "same source" if number < len(asked) - len(foreign) else "foreign"
            )
            report.append(summarise(name, kind, part, [score[number] for score in scores]))
            print(format_row(report[-1]), flush=True)
    path = args.output / f"leave_one_source_out_{args.recipe}.json"
    write_json(path, report)
    print(f"wrote {relative(path)}")


def sources_to_leave_out(data: LandmarkSet, least: int = 500) -> list[str]:
    """Return each source, and each file-name prefix group of at least `least` faces in a source that has several."""
    names = []
    for source in sorted(set(data.source.tolist())):
        groups = Counter(family(path) for path in data.path[data.source == source].tolist())
        large = sorted(name for name, count in groups.items() if count >= least)
        names += [source] * (len(set(data.source.tolist())) > 1) + [
            f"{source}/{name}*" for name in large if len(large) > 1
        ]
    return names


def of_source(data: LandmarkSet, name: str, missed: bool = False) -> np.ndarray:
    """Return a mask of the faces, or the missed pictures, of a source or of a file-name prefix group in it
    (`affectnet/ffhq_*`)."""
    sources, paths = (data.missed_source, data.missed_path) if missed else (data.source, data.path)
    source, _, wanted = name.removesuffix("*").partition("/")
    return np.array(
        [
            one == source and (not wanted or family(path) == wanted)
            for one, path in zip(sources.tolist(), paths.tolist())
        ],
        bool,
    )


def only(data: LandmarkSet, name: str) -> LandmarkSet:
    """Return the faces and missed pictures of one source or file-name prefix group."""
    return data.select(of_source(data, name), of_source(data, name, missed=True))


def seed_scores(seen: LandmarkSet, asked: list[LandmarkSet], recipe, seed: int) -> list[dict]:
    """Return a report for each set asked about, by one training."""
    trained = training.train(seen.part("train"), seen.part("val"), recipe, seed)
    reports = []
    for part in asked:
        probabilities, label = training.predict(trained, part), part.class_index()
        report = evaluate_predictions(*with_missed(label, probabilities, part.missed_index()), EMOTIONS)
        threshold, answered = answer_threshold(label, probabilities, training.ANSWERED_RIGHT)
        report |= {
            "ece": expected_calibration_error(label, probabilities),
            "answered": answered,
            "threshold": threshold,
        }
        reports.append(report)
    return reports


def summarise(name: str, kind: str, part: LandmarkSet, reports: list[dict]) -> dict:
    """Return means over seeds, and the 95% interval of the balanced accuracy: seeds and faces together."""
    accuracy = np.array([report["balanced_accuracy"] for report in reports])
    of_faces = np.mean([np.diff(report["balanced_accuracy_interval"])[0] / 2 for report in reports])
    half = float(np.hypot(of_faces, 1.96 * accuracy.std(ddof=1) if len(accuracy) > 1 else 0.0))
    mean = {
        key: float(np.mean([report[key] for report in reports])) for key in ("ece", "answered", "threshold")
    }
    recall = {
        label: float(np.mean([report["recall"][label][0] for report in reports]))
        for label in reports[0]["recall"]
    }
    return {
        "source": name,
        "kind": kind,
        "faces": len(part),
        "missed": len(part.missed_label),
        "recall": recall,
        **mean,
        "balanced_accuracy": float(accuracy.mean()),
        "interval": [float(accuracy.mean() - half), float(accuracy.mean() + half)],
    }


def format_row(row: dict) -> str:
    """Return a row of the table in models/README.md."""
    recalls = " | ".join(f"{row['recall'][name]:.2f}" if name in row["recall"] else "" for name in EMOTIONS)
    low, high = row["interval"]
    return (
        f"| {row['source']} | {row['kind']} | {row['faces'] + row['missed']:,} | "
        f"{row['balanced_accuracy']:.3f} ({low:.3f}-{high:.3f}) | {recalls} | {row['ece']:.3f} | {row['answered']:.0%} from {row['threshold']:.2f} |"
    )


if __name__ == "__main__":
    run_script(main, build_parser())
