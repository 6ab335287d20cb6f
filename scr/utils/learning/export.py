"""Networks to files and back: the bundle of a trained model, TFLite and ONNX."""

import hashlib
import importlib.metadata
import json
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from utils.config import UserError, atomic_path, native_log_silenced, relative
from utils.learning.bundle import (
    CROP_NAME,
    METADATA_FILE,
    NAME,
    PARTS,
    TFLITE,
    check_file,
    load_info,
    metadata_json,
    network_of,
)
from utils.learning.classifier import LitePart
from utils.learning.networks import import_keras

_PACKAGES = ("tensorflow", "keras", "mediapipe", "numpy", "scikit-learn", "ai-edge-litert")


def save_bundle(folder: Path, parts: dict[str, tuple], info: dict, files: Sequence[Path] = ()) -> list[str]:
    """Write a whole bundle: each part's files, copies of further files, and last the JSON that lists their
    sha256. Return the names of all.

    parts: `landmarks`: (network, scaler), `crop`: (network,); of each its Keras and its LiteRT model are
    written, and the scaler. info["parts"] has the threshold, and the features, of each. A bundle of one part
    alone keeps no file of the other.
    """
    info = info | {"versions": {name: importlib.metadata.version(name) for name in _PACKAGES}, "sha256": {}}
    with ExitStack() as stack:  # renamed in reverse order, so the JSON last, when all are written
        json_path = stack.enter_context(atomic_path(folder / f"{NAME}.json"))

        def write(name: str, writer) -> None:
            path = stack.enter_context(atomic_path(folder / name))
            writer(path)
            info["sha256"][name] = hashlib.sha256(path.read_bytes()).hexdigest()

        for name, part in parts.items():
            stem = Path(TFLITE[name]).stem
            write(f"{stem}.keras", part[0].save)
            if name == "landmarks":
                write("scaler.pkl", partial(_dump, part[1]))
            write(TFLITE[name], partial(export_tflite, part=part, info=part_info(info, name)))
        for file in files:
            write(file.name, partial(shutil.copyfile, file))
        json_path.write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    return [*info["sha256"], f"{NAME}.json"]


def _dump(scaler, path: Path) -> None:
    import joblib

    joblib.dump(scaler, path)


def part_info(info: dict, name: str) -> dict:
    """Return what the file of one part of a bundle carries about itself: it can be used alone."""
    return info | info.get("parts", {}).get(name, {})


def load_bundle(folder: Path) -> tuple[dict[str, tuple], dict]:
    """Return (parts, info) of a bundle, parts as `save_bundle` takes them; each file is checked."""
    keras, info = import_keras(), load_info(folder)
    parts = {}
    for name in PARTS[network_of(info)]:
        path = _checked(folder / f"{Path(TFLITE[name]).stem}.keras", info)
        scaler = [_load_scaler(_checked(folder / "scaler.pkl", info))] if name == "landmarks" else []
        parts[name] = (keras.saving.load_model(path, compile=False, safe_mode=True), *scaler)
    return parts, info


def _load_scaler(path: Path):
    import joblib

    return joblib.load(path)


def _checked(path: Path, info: dict) -> Path:
    """Return the path of a bundle's file, once it is there and unchanged: opening a pickle runs code."""
    if not path.is_file() or path.name not in info["sha256"]:
        raise UserError(f"no {relative(path)}; run: python scr/train_model.py")
    check_file(path)
    return path


def deployable(network, scaler=None):
    """Return the network that takes what its feature recipe makes: with its scaler, if any, in front."""
    if scaler is None:
        return network
    keras = import_keras()
    # Rescaling, not Normalization: the ONNX export of the latter grows extra inputs.
    # Two of them, so that the mean is subtracted first: in float32, x / s - m / s loses a digit that (x -
    # m) / s keeps.
    centre = keras.layers.Rescaling(1.0, (-scaler.mean_).tolist())
    scale = keras.layers.Rescaling((1 / scaler.scale_).tolist())
    inputs = keras.Input((len(scaler.mean_),), name="features")
    return keras.Model(inputs, network(scale(centre(inputs)), training=False), name=NAME)


def has_half_weights(info: dict) -> bool:
    """Tell whether the LiteRT files of a bundle have float16 weights."""
    return network_of(info) != "landmarks"


def export_tflite(path: Path, part: tuple, info: dict, int8: bool = False) -> None:
    """Write a part as LiteRT model, scaler folded in, metadata packed behind it.

    The parts of a hybrid, and a crop network, are written with float16 weights: half the size, the same speed
    and, to a few thousandths, the same answers. With `int8`, weights are 8 bit integers (dynamic range).
    """
    import tensorflow

    options = {}
    half = has_half_weights(info) and not int8
    if int8 or half:
        options["optimizations"] = [tensorflow.lite.Optimize.DEFAULT]
    if half:
        options["target_spec"] = {"supported_types": [tensorflow.float16]}
    with native_log_silenced():
        deployable(*part).export(path, format="litert", verbose=False, **options)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA_FILE), metadata_json(info))


def export_onnx(path: Path, part: tuple, info: dict) -> None:
    """Write a part as ONNX model, scaler folded in, metadata in `metadata_props`."""
    import onnx

    whole = deployable(*part)
    # Keras exports to ONNX only what was called once.
    whole(np.zeros((1, *whole.input_shape[1:]), np.float32))
    with native_log_silenced():
        whole.export(path, format="onnx", verbose=False)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_FILE: metadata_json(info)})
    _name_tensors(model.graph, info)
    model.doc_string = "Reads emotions from a face; inputs and outputs: docs/model_io.md"
    onnx.save(model, path)


def _name_tensors(graph, info: dict) -> None:
    """Give the inputs and outputs of an ONNX graph names that say what they are, and descriptions."""
    texts = {
        "features": "float32 (faces, features): aligned landmarks, then blendshapes",
        "crop": "float32 (faces, side, side, 1): the face upright, grey, of normalised contrast",
        "probabilities": f"float32 (faces, classes): {', '.join(info['classes'])}; they sum to 1",
        "embedding": "float32 (faces, size): the last hidden layer, for personal models",
    }
    (unnamed,) = [one.name for one in graph.output if one.name not in texts] or [None]
    for tensor in graph.output:
        tensor.name = "probabilities" if tensor.name == unnamed else tensor.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["probabilities" if name == unnamed else name for name in names]
    for tensor in (*graph.input, *graph.output):
        tensor.doc_string = texts[tensor.name]
        tensor.type.tensor_type.shape.dim[0].dim_param = "faces"


def open_exported(path: Path):
    """Return a function that runs an exported `.tflite` or `.onnx`: input (n, ...) -> (n, classes).

    Raises ValueError if the file has not exactly one input, and one output or, as a crop network, two.
    """
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs = sorted(session.get_outputs(), key=lambda output: output.shape[-1])
        _expect(path, session.get_inputs(), outputs)
        name = session.get_inputs()[0].name
        return lambda x: session.run([outputs[0].name], {name: x})[0]
    part = LitePart(path)
    _expect(path, part.interpreter.get_input_details(), part.interpreter.get_output_details())
    return lambda x: part.run(x)[0]


def _expect(path: Path, inputs: Sequence, outputs: Sequence) -> None:
    wanted = 2 if path.name.startswith(CROP_NAME) else 1
    if len(inputs) != 1 or len(outputs) != wanted:
        raise ValueError(
            f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs, expected 1 and {wanted}"
        )
