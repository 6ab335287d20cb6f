"""A trained bundle -> TFLite float32, TFLite int8 and ONNX, each checked on real faces.

    python scr/export_model.py
    python scr/export_model.py --model models/personal/ann --formats onnx

Scaler, alignment constants and class names travel inside each file. Parity with Keras is checked after
each export.
"""

from utils.cli import make_parser, run_script

import statistics
import timeit
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.config import MODELS, UserError, relative
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
"""Half a point of balanced accuracy, on labelled faces; on few, what two predictions of a rare class move."""
INT8_CHANGED = 0.02
"""On unlabelled faces, the share of predictions that may change."""


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=MODELS, metavar="MODEL", help="bundle to export: folder or name")
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

    model = bundle.find_model(args.model).path
    if not bundle.has_info(model):
        raise UserError(
            f"{relative(model)} is not the folder of a trained model; name one with {bundle.JSON}"
        )
    parts, info = export.load_bundle(model)
    data = load_faces(args.data, info["classes"])
    output = args.output or model
    print_header()
    with export.adding(output, info) as folder:
        for part in parts:
            reference = predict_keras(model, part, parts[part], info, data)
            for name in args.formats:
                if (part, name) == ("crop", "int8"):
                    continue  # 8 bit integers make the crop network slower
                path = folder / f"{Path(bundle.TFLITE[part]).stem}{FORMATS[name]}"
                write(path, name, parts[part], export.part_info(info, part))
                parity = compare(path, *reference)
                print_row(path, parity)
                half = name == "tflite" and export.has_half_weights(info)
                check_parity(path, name, parity, HALF_TOLERANCE if half else FLOAT_TOLERANCE)
    print(f"wrote {relative(output)}; parity with Keras checked on {len(data)} faces")
    if output.resolve() in (MODELS, MODELS / "seven"):
        print(
            f"{relative(output / bundle.JSON)} lists the new files, so `git status` shows it as changed; "
            "--output DIR writes elsewhere"
        )


@dataclass(frozen=True)
class Parity:
    """How an exported file predicts, against Keras.

    difference: the largest of a probability; same: share of the same predictions; scores: balanced accuracy
    of both, empty without labels; latency_ms: of one face; two: by how much two predictions of the rarest
    class move the balanced accuracy.
    """

    difference: float
    same: float
    scores: list[float]
    latency_ms: float
    two: float = 0.0


def predict_keras(
    folder: Path, name: str, part: tuple, info: dict, data: FaceSet
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return a part's input (n, ...), Keras's probabilities (n, classes), and the labels (n,), if there are
    any."""
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


def compare(path: Path, x: np.ndarray, expected: np.ndarray, label: np.ndarray | None) -> Parity:
    """Run an exported file on inputs (n, ...) for which Keras predicts `expected` (n, classes)."""
    from utils.training import export

    run = export.open_exported(path)
    found, classes = run(x), range(expected.shape[1])
    difference, same = np.abs(found - expected).max(), found.argmax(axis=1) == expected.argmax(axis=1)
    seconds = timeit.repeat(lambda: run(x[:1]), number=1, repeat=300)
    parity = Parity(float(difference), float(same.mean()), [], statistics.median(seconds) * 1000)
    if label is None:
        return parity
    reports = [evaluate_predictions(label, one.argmax(axis=1), classes) for one in (expected, found)]
    counts = np.unique(label, return_counts=True)[1]
    scores = [report["balanced_accuracy"] for report in reports]
    return replace(parity, scores=scores, two=2 / (len(counts) * counts.min()))


def print_header() -> None:
    """Print the names of the columns of `print_row`."""
    print(
        f"{'file':<28}{'size':>10}{'one face':>12}{'largest difference':>21}{'same prediction':>17}"
        f"{'balanced accuracy':>20}"
    )


def print_row(path: Path, parity: Parity) -> None:
    """Print the row of one file."""
    scores = " -> ".join(f"{score:.4f}" for score in parity.scores) or "no labels"
    print(
        f"{path.name:<28}{path.stat().st_size / 1e6:>7.2f} MB{parity.latency_ms:>9.3f} ms"
        f"{parity.difference:>21.1e}{parity.same:>17.1%}{scores:>20}"
    )


def check_parity(path: Path, name: str, parity: Parity, tolerance: float) -> None:
    """Raise ValueError if an export predicts otherwise than Keras does.

    tolerance: the largest difference of a probability.
    """
    if name != "int8":
        if parity.difference > tolerance:
            raise ValueError(f"{path} differs from Keras by {parity.difference:.1e}, more than {tolerance}")
    elif parity.scores:
        change, most = parity.scores[1] - parity.scores[0], max(INT8_TOLERANCE, parity.two)
        if abs(change) > most:
            raise ValueError(f"{path} changes balanced accuracy by {change:+.4f}, more than {most:.4f}")
    elif 1 - parity.same > INT8_CHANGED:
        raise ValueError(f"{path} changes {1 - parity.same:.1%} of predictions, more than {INT8_CHANGED:.0%}")


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
        for frame in filter(None, source):
            for face in landmarker.detect(frame.image, frame.timestamp_ms):
                faces.append(face)
                crops.append(crop_face(frame.image, face.landmarks))
    return FaceSet(
        np.stack([face.landmarks for face in faces]),
        np.full(len(faces), ""),
        np.stack([face.blendshapes for face in faces]),
        crop=np.stack(crops),
    )


if __name__ == "__main__":
    run_script(main, build_parser())
