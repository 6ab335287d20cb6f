"""Networks to files and back: the bundle of a trained model, TFLite and ONNX."""

import hashlib
import importlib.metadata
import json
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from utils.config import UserError, atomic_path, native_log_silenced, relative
from utils.learning.bundle import METADATA_FILE, NAME, check_file, load_info, metadata_json
from utils.learning.classifier import EmotionClassifier
from utils.learning.networks import import_keras

_PACKAGES = ("tensorflow", "keras", "mediapipe", "numpy", "scikit-learn", "ai-edge-litert")


def save_bundle(folder: Path, network, scaler, info: dict) -> None:
    """Write a whole bundle: network, scaler, LiteRT model and last the JSON that lists their sha256."""
    import joblib

    info = info | {"versions": {name: importlib.metadata.version(name) for name in _PACKAGES}}
    with ExitStack() as stack:  # renamed in reverse order, so the JSON last, when all are written
        json_path, network_path, scaler_path, tflite_path = (
            stack.enter_context(atomic_path(folder / name))
            for name in (f"{NAME}.json", f"{NAME}.keras", "scaler.pkl", f"{NAME}.tflite")
        )
        network.save(network_path)
        joblib.dump(scaler, scaler_path)
        export_tflite(tflite_path, network, scaler, info)
        files = {f"{NAME}.keras": network_path, "scaler.pkl": scaler_path, f"{NAME}.tflite": tflite_path}
        info["sha256"] = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        json_path.write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def load_bundle(folder: Path) -> tuple:
    """Return (network, scaler, info) of a bundle; each file is checked against the JSON before it is
    opened."""
    import joblib

    keras = import_keras()
    info = load_info(folder)
    network_path, scaler_path = folder / f"{NAME}.keras", folder / "scaler.pkl"
    for path in (network_path, scaler_path):
        if not path.is_file() or path.name not in info["sha256"]:
            raise UserError(f"no {relative(path)}; run: python scr/train_model.py")
        check_file(path)  # a pickle runs code when it is opened: not before its checksum is right
    return (
        keras.saving.load_model(network_path, compile=False, safe_mode=True),
        joblib.load(scaler_path),
        info,
    )


def deployable(network, scaler):
    """Return the network with the scaler in front: features as `compute_features` gives them ->
    probabilities."""
    keras = import_keras()
    # Rescaling, not Normalization: the ONNX export of the latter grows extra inputs.
    # Two of them, so that the mean is subtracted first: in float32, x / s - m / s loses a digit that (x -
    # m) / s keeps.
    centre = keras.layers.Rescaling(1.0, (-scaler.mean_).tolist())
    scale = keras.layers.Rescaling((1 / scaler.scale_).tolist())
    inputs = keras.Input((len(scaler.mean_),), name="features")
    return keras.Model(inputs, network(scale(centre(inputs)), training=False), name=NAME)


def export_tflite(path: Path, network, scaler, info: dict, int8: bool = False) -> None:
    """Write a LiteRT model, float32 or with dynamic-range int8 weights, scaler folded in, metadata packed
    behind it."""
    import tensorflow

    options = {"optimizations": [tensorflow.lite.Optimize.DEFAULT]} if int8 else {}
    with native_log_silenced():
        deployable(network, scaler).export(path, format="litert", verbose=False, **options)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA_FILE), metadata_json(info))


def export_onnx(path: Path, network, scaler, info: dict) -> None:
    """Write an ONNX model, scaler folded in, metadata in `metadata_props`."""
    import onnx

    whole = deployable(network, scaler)
    whole(np.zeros((1, len(scaler.mean_)), np.float32))  # Keras exports to ONNX only what was called once
    with native_log_silenced():
        whole.export(path, format="onnx", verbose=False)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_FILE: metadata_json(info)})
    onnx.save(model, path)


def open_exported(path: Path):
    """Return a function features (n, d) -> probabilities (n, classes) that runs an exported `.tflite` or
    `.onnx`.

    Raises ValueError if the file has not exactly one input and one output.
    """
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        _expect_one(path, session.get_inputs(), session.get_outputs())
        name = session.get_inputs()[0].name
        return lambda features: session.run(None, {name: features})[0]
    classifier = EmotionClassifier(path)
    _expect_one(
        path, classifier._interpreter.get_input_details(), classifier._interpreter.get_output_details()
    )
    return classifier.predict_features


def _expect_one(path: Path, inputs: Sequence, outputs: Sequence) -> None:
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each"
        )
