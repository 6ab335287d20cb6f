"""A trained bundle -> TFLite float32, TFLite int8 and ONNX, each checked on real faces.

    python scr/export_model.py
    python scr/export_model.py --model models/personal/ann --formats onnx

Scaler, alignment constants and class names travel inside each file. Parity with Keras is checked after
each export.
"""

from utils.cli import make_parser, run_script

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.config import MODELS, PERSONAL_MODELS, UserError, relative
from utils.data.face_set import FaceSet, load_face_set
from utils.evaluation.metrics import evaluate_predictions
from utils.files import atomic_path

FORMATS = {"tflite": ".tflite", "int8": "_int8.tflite", "onnx": ".onnx"}
FLOAT_TOLERANCE = 1e-5
HALF_TOLERANCE = 0.02
"""Of LiteRT files with float16 weights."""
MOST_FACES = 1000
"""Faces of a set that are compared, evenly picked."""
INT8_TOLERANCE = 0.005
"""Half a point of balanced accuracy, on labelled faces; on few, what two answers to a rare class move."""
INT8_CHANGED = 0.02
"""On unlabelled faces, the share of answers that may change."""


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--model", type=Path, default=MODELS, metavar="MODEL", help="bundle to export: folder or name"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the files (default: the bundle's)"
    )
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="what to write")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="faces for the parity check, .faces or .txt (default: the frames of assets/demo.mp4)",
    )
    return parser


def main(args):
    from utils.model import bundle
    from utils.training import export

    args.model = find_folder(args.model)
    bundle.load_info(args.model)  # before Keras is loaded in vain
    parts, info = export.load_bundle(args.model)
    data = load_faces(args.data, info["classes"])
    output = args.output or args.model
    print_header()
    with export.adding(output, info) as folder:
        for part in parts:
            reference = ask_keras(args.model, part, parts[part], info, data)
            for name in formats_of(part, args.formats):
                path = folder / f"{Path(bundle.TFLITE[part]).stem}{FORMATS[name]}"
                write(path, name, parts[part], export.part_info(info, part))
                parity = compare(path, *reference)
                print_row(path, parity)
                half = name == "tflite" and export.has_half_weights(info)
                check_parity(path, name, parity, HALF_TOLERANCE if half else FLOAT_TOLERANCE)
    print(
        f"wrote {relative(output)}; one input, one output and parity with Keras checked on {len(data)} faces"
    )
    if output.resolve() in (MODELS, MODELS / "seven"):
        print(
            f"{relative(output / bundle.JSON)} lists the new files, so `git status` shows it as changed; "
            "--output DIR writes elsewhere"
        )


def find_folder(model: Path) -> Path:
    """Return the folder of the bundle that a path, or a name in models/personal or models, means."""
    from utils.model.bundle import NAME, find_model, has_info

    for folder in (model, PERSONAL_MODELS / model, MODELS / model):
        if has_info(folder):
            return folder
    find_model(model)  # says what is missing
    raise UserError(
        f"{relative(model)} is not the folder of a trained model; name one with {NAME}.json in it"
    )


def formats_of(part: str, wanted: list[str]) -> list[str]:
    """Return the formats that a part is written in; 8 bit integers make the crop network slower."""
    return [name for name in wanted if part != "crop" or name != "int8"]


@dataclass(frozen=True)
class Parity:
    """How an exported file answers, against Keras: largest difference of a probability, share of the same
    answers, balanced accuracy of both (empty without labels), milliseconds a face, and by how much two
    answers of the rarest class move the balanced accuracy."""

    difference: float
    same: float
    scores: list[float]
    latency_ms: float
    two_answers: float = 0.0


def ask_keras(
    folder: Path, name: str, part: tuple, info: dict, data: FaceSet
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return a part's input (n, ...), Keras's answers (n, classes), and the labels (n,), if there are any."""
    from utils.model.classifier import part_input
    from utils.training import export, landmark_network, networks

    x = part_input(folder, export.part_info(info, name)["features"], data)
    seen = landmark_network.standardise(part[1], x) if name == "landmarks" else x
    expected = networks.predict_network(part[0], seen, batch=4096 if name == "landmarks" else 64)
    labelled = bool(data.label[0])
    return x, expected, data.class_index(info["classes"]) if labelled else None


def write(path: Path, name: str, part: tuple, info: dict) -> None:
    """Write a part in one format."""
    from utils.training import export

    with atomic_path(path) as partial:
        if name == "onnx":
            export.export_onnx(partial, part, info)
        else:
            export.export_tflite(partial, part, info, int8=name == "int8")


def compare(path: Path, features: np.ndarray, expected: np.ndarray, label: np.ndarray | None) -> Parity:
    """Run an exported file on features (n, d) that Keras answered by `expected` (n, classes)."""
    from utils.training import export

    run = export.open_exported(path)
    answers = run(features)
    scores = [] if label is None else [balanced_accuracy(label, values) for values in (expected, answers)]
    return Parity(
        float(np.abs(answers - expected).max()),
        float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        scores,
        latency_ms(run, features),
        0.0 if label is None else two_answers_move(label),
    )


def two_answers_move(label: np.ndarray) -> float:
    """Return by how much two answers to the rarest class of labels (n,) move the balanced accuracy."""
    counts = np.unique(label, return_counts=True)[1]
    return 2 / (len(counts) * counts.min())


def print_header() -> None:
    """Print the names of the columns of `print_row`."""
    print(
        f"{'file':<28}{'size':>10}{'one face':>12}{'largest difference':>21}{'same answer':>14}"
        f"{'balanced accuracy':>20}"
    )


def print_row(path: Path, parity: Parity) -> None:
    """Print the row of one file."""
    scores = " -> ".join(f"{score:.4f}" for score in parity.scores) or "no labels"
    print(
        f"{path.name:<28}{path.stat().st_size / 1e6:>7.2f} MB{parity.latency_ms:>9.3f} ms"
        f"{parity.difference:>21.1e}{parity.same:>14.1%}{scores:>20}"
    )


def check_parity(path: Path, name: str, parity: Parity, tolerance: float) -> None:
    """Raise ValueError if an export answers otherwise than Keras does.

    tolerance: the largest difference of a probability.
    """
    if name != "int8":
        if parity.difference > tolerance:
            raise ValueError(f"{path} differs from Keras by {parity.difference:.1e}, more than {tolerance}")
    elif parity.scores:
        change, most = parity.scores[1] - parity.scores[0], max(INT8_TOLERANCE, parity.two_answers)
        if abs(change) > most:
            raise ValueError(f"{path} changes balanced accuracy by {change:+.4f}, more than {most:.4f}")
    elif 1 - parity.same > INT8_CHANGED:
        raise ValueError(f"{path} changes {1 - parity.same:.1%} of the answers, more than {INT8_CHANGED:.0%}")


def load_faces(path: Path | None, classes: list[str]) -> FaceSet:
    """Return real faces: of a set, at most `MOST_FACES`, or those of the bundled clip, without labels."""
    if path is None:
        return demo_faces()
    data = load_face_set(path).of_classes(classes)
    if len(data) == 0:
        raise UserError(f"{relative(path)} holds no face labelled {', '.join(classes)}")
    return data.select(slice(None, None, -(-len(data) // MOST_FACES)))


def demo_faces() -> FaceSet:
    """Return the faces in the bundled clip; their label is empty."""
    from utils.faces.crops import crop_face
    from utils.faces.landmarker import FaceLandmarker
    from utils.video.sources import DEMO_CLIP, open_source

    faces, crops = [], []
    landmarker = FaceLandmarker(video=True, max_faces=1)
    with open_source(str(DEMO_CLIP)) as source:
        for frame in source:
            for face in landmarker.detect(frame.image, frame.timestamp_ms)[:1] if frame is not None else []:
                faces.append(face)
                crops.append(crop_face(frame.image, face.landmarks))
    return FaceSet(
        np.stack([face.landmarks for face in faces]),
        np.full(len(faces), ""),
        np.stack([face.blendshapes for face in faces]),
        crop=np.stack(crops),
    )


def balanced_accuracy(label: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of the recalls."""
    return evaluate_predictions(label, probabilities.argmax(axis=1), range(probabilities.shape[1]))[
        "balanced_accuracy"
    ]


def latency_ms(run, features: np.ndarray, faces: int = 300) -> float:
    """Return the median time for one face, in milliseconds."""
    times = []
    for index in range(faces):
        one = features[index % len(features)][None]
        start = time.perf_counter()
        run(one)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    run_script(main, build_parser())
