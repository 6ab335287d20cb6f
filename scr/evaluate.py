"""A trained model on a labelled set -> report, confusion matrix, calibration.

    python scr/evaluate.py --images data/london
    python scr/evaluate.py --data data/training.npz --split test

It runs the LiteRT model, the one that runs live. A picture on which no face is found counts as wrong.
"""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from utils.config import (DATA, MODELS, UserError, add_share_flag, atomic_path, make_parser,
                          positive_int, relative, run_script)
from utils.dataset import (LandmarkSet, concatenate, find_labelled_images, from_rows, load_landmarks, read_ferplus)
from utils.metrics import evaluate_predictions, expected_calibration_error, format_report, with_missed

CHUNK = 64


def build_parser():
    parser = make_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--images", type=Path, metavar="DIR", help="any <emotion>/* tree of pictures")
    what.add_argument("--data", type=Path, nargs="+", metavar="FILE", help="landmark sets, .npz or .txt")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="with --images: FER+ votes instead of folder names")
    parser.add_argument("--split", choices=("all", "train", "val", "test"), help="with --data: the part to look at "
                        "(default: test if the set is split, else all)")
    parser.add_argument("--model", default=MODELS, metavar="MODEL", help="bundle folder, .tflite file or personal model")
    parser.add_argument("--output", type=Path, default=DATA / "evaluation", metavar="DIR", help="folder for report and figures")
    parser.add_argument("--jobs", type=positive_int, default=os.cpu_count(), help="worker processes for --images")
    add_share_flag(parser)
    return parser


def main(args):
    from utils import classifier, plots

    model = classifier.EmotionClassifier(args.model)
    if args.images:
        data, part = extract(args.images.resolve(), args.labels, args.jobs), "all"
    else:
        data, part = choose_split(concatenate([load_landmarks(path) for path in args.data]), args.split)
    other = Counter(name for name in data.label.tolist() if name not in model.classes)
    data = data.of_classes(model.classes)
    if len(data) + len(data.missed_label) == 0:
        raise UserError(f"nothing to evaluate: no picture labelled {', '.join(model.classes)}")

    label = data.class_index(model.classes)
    probabilities = model.predict(data.landmarks)
    report = {"model": relative(model.path), "part": part, **score(data, label, probabilities, model.classes)}
    title = f"{', '.join(sorted({*data.source.tolist(), *data.missed_source.tolist()}))} ({part})"
    print(f"{relative(model.path)} on {title}")
    if other:
        print("left out, not a class of the model: " + ", ".join(f"{count} {name}" for name, count in sorted(other.items())))
    print(format_report(report["all"], model.classes))
    print(f"calibration error (ECE, 15 bins, of the faces found) {report['ece']:.3f}")
    print_sources(report["sources"], model.classes)

    plots.plot_confusion_matrix(args.output / "confusion_matrix.png", report["all"]["confusion_matrix"], model.classes,
                                f"{title}\nbalanced accuracy {report['all']['balanced_accuracy']:.3f}")
    plots.plot_reliability(args.output / "reliability.png", label, probabilities, report["ece"], title)
    with atomic_path(args.output / "report.json") as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {relative(args.output)}: report.json, confusion_matrix.png, reliability.png")


def extract(root: Path, labels: Path | None, jobs: int) -> LandmarkSet:
    """Return the landmark set of a folder of pictures, the missed ones included."""
    from tqdm import tqdm

    from utils.landmarks import extract_parallel

    images, _ = read_ferplus(root, labels) if labels else find_labelled_images(root)
    chunks = [images[start:start + CHUNK] for start in range(0, len(images), CHUNK)]
    rows = []
    with tqdm(total=len(images), unit="img", desc=root.name) as bar:
        for chunk in extract_parallel([[image.path for image in chunk] for chunk in chunks], jobs):
            rows += chunk
            bar.update(len(chunk))
    return from_rows(images, rows, root, root.name)


def choose_split(data: LandmarkSet, split: str | None) -> tuple[LandmarkSet, str]:
    """Return the part of a set to look at, and its name."""
    if split is None:
        split = "test" if (data.split == "test").any() else "all"
    if split == "all":
        return data, split
    if not (data.split == split).any():
        raise UserError(f"the set has no part '{split}'; leave --split out, or split it with: python scr/balance_dataset.py")
    return data.part(split), split


def score(data: LandmarkSet, label: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> dict:
    """Return the figures of the whole set, and of each source if there are several."""
    all_label, predicted = with_missed(label, probabilities, data.missed_index(classes))
    source = np.concatenate([data.source, data.missed_source])
    names = sorted(set(source.tolist()))
    return {"all": evaluate_predictions(all_label, predicted, classes),
            "ece": expected_calibration_error(label, probabilities),
            "sources": {name: evaluate_predictions(all_label[source == name], predicted[source == name], classes)
                        for name in names} if len(names) > 1 else {}}


def print_sources(sources: dict, classes: tuple[str, ...]) -> None:
    """Print one line for each source."""
    for name, report in sources.items():
        recalls = "  ".join(f"{label} {report['recall'][label][0]:.2f}" for label in classes if label in report["recall"])
        print(f"  source {name:<16} n {report['faces'] + report['missed']:>6}  balanced accuracy "
              f"{report['balanced_accuracy']:.3f}  {recalls}")


if __name__ == "__main__":
    run_script(main, build_parser())
