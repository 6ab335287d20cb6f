"""A trained bundle -> TFLite float32, TFLite int8 and ONNX, each checked on real faces.

    python scr/export_model.py
    python scr/export_model.py --model models/personal/ann --formats onnx

Scaler, alignment constants and class names travel inside each file. Parity with Keras is checked after
each export.
"""

from utils.cli import make_parser, run_script

import statistics
import timeit
from pathlib import Path

import numpy as np

from utils.config import MODELS, UserError, relative
from utils.data.face_set import FaceSet, load_face_set
from utils.files import atomic_path

FORMATS = {"tflite": ".tflite", "int8": "_int8.tflite", "onnx": ".onnx"}
FLOAT_TOLERANCE = 1e-5
HALF_TOLERANCE = 0.02
"""Of LiteRT files with float16 weights."""
MOST_FACES = 1000
"""Faces of a set that are compared, evenly picked."""
INT8_CHANGED = 0.02
"""Share of the predictions that 8 bit integers may change; two faces of a few."""


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=MODELS, metavar="MODEL", help="bundle to export: folder or name")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the files (default: the bundle's)"
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=(*FORMATS, "web"),
        default=list(FORMATS),
        help="what to write (default: all but web, which is a page for browsers: docs/page.md)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="faces for the parity check, .faces or .txt (default: the frames of assets/demo.mp4)",
    )
    return parser


def main(args):
    from utils.app.web_page import write_page
    from utils.model import bundle

    if "web" in args.formats:
        write_page(args.model, args.output)
        args.formats.remove("web")
        if not args.formats:
            return
    from utils.training import export

    model = bundle.find_model(args.model).path
    if not bundle.has_info(model):
        raise UserError(
            f"{relative(model)} is not the folder of a trained model; name one with {bundle.JSON}"
        )
    parts, info = export.load_bundle(model)
    if list(parts) == ["crop"] and args.formats == ["int8"]:
        raise UserError("a crop network isn't written as int8, which would make it slower; leave int8 out")
    data = load_faces(args.data, info["classes"])
    output = args.output or model
    print(f"{'file':<28}{'size':>10}{'one face':>12}{'largest difference':>21}{'same prediction':>17}")
    with export.adding(output, info) as folder:
        for part in parts:
            reference = predict_keras(model, part, parts[part], info, data)
            for name in args.formats:
                if (part, name) == ("crop", "int8"):
                    continue  # slower
                path = folder / f"{Path(bundle.TFLITE[part]).stem}{FORMATS[name]}"
                write(path, name, parts[part], export.part_info(info, part))
                half = name == "tflite" and export.has_half_weights(info)
                print(check_parity(path, name, HALF_TOLERANCE if half else FLOAT_TOLERANCE, *reference))
    print(f"wrote {relative(output)}; parity with Keras checked on {len(data)} faces")
    if output.resolve() == MODELS:
        print(
            f"{relative(output / bundle.JSON)} lists the new files, so `git status` shows it as changed; "
            "--output DIR writes elsewhere"
        )


def predict_keras(folder: Path, name: str, part: tuple, info: dict, data: FaceSet) -> tuple:
    """Return a part's input (n, ...) and Keras's probabilities (n, classes)."""
    from utils.model.classifier import part_input
    from utils.training import export, landmark_network, networks

    x = part_input(folder, export.part_info(info, name)["features"], data)
    seen = landmark_network.standardise(part[1], x) if name == "landmarks" else x
    return x, networks.predict_network(part[0], seen, batch=4096 if name == "landmarks" else 64)


def write(path: Path, name: str, part: tuple, info: dict) -> None:
    """Write a part in one format."""
    from utils.training import export

    with atomic_path(path) as partial:
        if name == "onnx":
            export.export_onnx(partial, part, info)
        else:
            export.export_tflite(partial, part, info, int8=name == "int8")


def check_parity(path: Path, name: str, tolerance: float, x: np.ndarray, expected: np.ndarray) -> str:
    """Run an exported file on inputs (n, ...) for which Keras predicts `expected` (n, classes).

    tolerance: the largest difference of a probability, of floating-point files. Returns a row for the table;
    raises ValueError if the file predicts otherwise.
    """
    from utils.training import export

    run = export.open_exported(path)
    found = run(x)
    difference = float(np.abs(found - expected).max())
    changed = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if name == "int8" and changed > max(2, INT8_CHANGED * len(x)):
        raise ValueError(f"{path} changes {changed} of {len(x)} predictions")
    if name != "int8" and difference > tolerance:
        raise ValueError(f"{path} differs from Keras by {difference:.1e}, more than {tolerance}")
    latency = statistics.median(timeit.repeat(lambda: run(x[:1]), number=1, repeat=300)) * 1000
    return (
        f"{path.name:<28}{path.stat().st_size / 1e6:>7.2f} MB{latency:>9.3f} ms{difference:>21.1e}"
        f"{1 - changed / len(x):>17.1%}"
    )


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
