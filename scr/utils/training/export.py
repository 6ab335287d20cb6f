"""Networks to files and back: the bundle of a trained model, TFLite and ONNX."""

import contextlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..config import UserError, native_log_silenced, relative
from ..files import atomic_path, write_json
from ..model.bundle import (
    HOW_TO_TRAIN,
    JSON,
    METADATA_FILE,
    NAME,
    TFLITE,
    digests,
    has_info,
    load_info,
    metadata_json,
    network_of,
    pack_metadata,
    read_checked,
    replacing,
    unless_replaced,
)
from ..model.classifier import LiteNetwork
from ..model.schema import PARTS, Bundle, check, input_shape
from .networks import import_keras

_PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "ai-edge-litert")


def save_bundle(
    folder: Path, parts: dict[str, tuple], info: dict, files: Sequence[Path] = (), private: bool = False
) -> list[str]:
    """Write a whole bundle in place of the one in the folder, if there is one. Return the names of its files.

    parts: `landmarks`: (network, scaler), `crop`: (network,); of each its Keras and its LiteRT model are
    written, and the scaler; files: further ones, of which copies are taken. info["parts"] has the threshold,
    and the features, of each. private: only the owner can read it (0700, 0600). The folder keeps no file of a
    bundle that this one lacks. Raises UserError, and leaves the folder as it was, if a network predicts no
    probabilities.
    """
    info = info | {"versions": {name: importlib.metadata.version(name) for name in _PACKAGES}}
    info.pop("scaler", None)
    with replacing(folder, private) as staging:

        def write(name: str, writer) -> None:
            with atomic_path(staging / name) as path:
                writer(path)

        for name, part in parts.items():
            check_numbers(part[0])
            stem = Path(TFLITE[name]).stem
            write(f"{stem}.keras", part[0].save)
            if name == "landmarks":
                info["scaler"] = describe_scaler(part[1])
                write("scaler.pkl", partial(_pickle, part[1]))
            write(TFLITE[name], partial(export_tflite, part=part, info=part_info(info, name)))
            # Opening it refuses a network that predicts no probabilities.
            LiteNetwork(staging / TFLITE[name], (staging / TFLITE[name]).read_bytes())
        for file in files:
            write(file.name, partial(shutil.copyfile, file))
        info["sha256"] = digests(staging)
        check(info, Bundle)
        write_json(staging / JSON, info)
    return [*info["sha256"], JSON]


@contextlib.contextmanager
def adding(folder: Path, info: dict) -> Iterator[Path]:
    """Yield a folder for further files of a model; they get into `folder` if the block ends well.

    info: the model's JSON; a folder without one gets it. Raises UserError if another model's is there.
    """
    listed = {}
    with replacing(folder) as staging:
        if has_info(folder):
            there = load_info(folder)
            if there | {"sha256": 0} != info | {"sha256": 0}:
                raise UserError(f"{relative(folder)} holds another model; choose another --output")
            listed = there["sha256"]
        yield staging
        write_json(staging / JSON, info | {"sha256": listed | digests(staging)})


def check_numbers(network) -> None:
    """Raise UserError if a network's weights are no numbers."""
    if not all(np.isfinite(values).all() for values in network.get_weights()):
        raise UserError(
            "training ended with weights that are no numbers (NaN or infinite): no model is written; "
            "look at the data with python scr/balance_dataset.py"
        )


def describe_scaler(scaler) -> dict:
    """Return mean and scale of a `StandardScaler` for JSON, each number as short as float32 allows."""
    mean, scale = (
        [float(str(value)) for value in values.astype(np.float32)] for values in (scaler.mean_, scaler.scale_)
    )
    return {"mean": mean, "scale": scale, "faces": int(scaler.n_samples_seen_)}


def restore_scaler(about: dict):
    """Return the `StandardScaler` that `describe_scaler` described, to the bit."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = (
        np.array(about[name], np.float32).astype(np.float64) for name in ("mean", "scale")
    )
    scaler.var_, scaler.n_features_in_ = np.square(scaler.scale_), len(scaler.mean_)
    scaler.n_samples_seen_ = about["faces"]
    return scaler


def _pickle(scaler, path: Path) -> None:
    """Write `scaler.pkl`, for those who want it with joblib: nothing here opens it."""
    import joblib

    joblib.dump(scaler, path)


def part_info(info: dict, name: str) -> dict:
    """Return what the file of one part of a bundle carries about itself: it can be used alone."""
    return info | info.get("parts", {}).get(name, {})


def load_bundle(folder: Path) -> tuple[dict[str, tuple], dict]:
    """Return (parts, info) of a bundle, parts as `save_bundle` takes them; each file is checked.

    Raises UserError if a file is missing, or not what the JSON says.
    """
    return unless_replaced(folder, partial(_load_parts, folder))


def _load_parts(folder: Path, info: dict) -> tuple[dict[str, tuple], dict]:
    parts = {}
    for name in PARTS[network_of(info)]:
        network = _load_network(folder / f"{Path(TFLITE[name]).stem}.keras", info, part_info(info, name))
        if name == "landmarks" and "scaler" not in info:
            raise UserError(
                f"{relative(folder / JSON)} lacks mean and scale of the features: it was made by an earlier "
                "version; train again"
            )
        parts[name] = (network, restore_scaler(info["scaler"])) if name == "landmarks" else (network,)
    return parts, info


def _load_network(path: Path, info: dict, about: dict):
    """Return the Keras network of a part; raises UserError if it is missing or not what `about` says."""
    if path.name not in info["sha256"]:
        raise UserError(f"{relative(path)} is listed in no {JSON} beside it; {HOW_TO_TRAIN}")
    content = read_checked(path, info)
    keras = import_keras()  # a missing package is no damaged file
    try:
        with tempfile.TemporaryDirectory() as folder:  # so that what is opened is what was checked
            (Path(folder) / path.name).write_bytes(content)
            network = keras.saving.load_model(Path(folder) / path.name, compile=False, safe_mode=True)
        output = network.output_shape
        if isinstance(output, list):  # of a crop network, by name
            output = output[network.output_names.index("probabilities")]
        shapes = network.input_shape[1:], output[1:]
        if not all(np.isfinite(values).all() for values in network.get_weights()):
            raise ValueError("weights that are no numbers")
    except Exception as error:  # whatever a file can make Keras raise: it documents nothing
        why = " ".join(str(error).split())[:200]
        raise UserError(f"Keras can't open {relative(path)} ({why}); train again or restore it") from error
    if shapes != (input_shape(about["features"]), (len(about["classes"]),)):
        raise UserError(
            f"{relative(path)} is not the network that {JSON} describes; train again or restore both"
        )
    return network


def deployable(network, scaler=None):
    """Return the network that takes what its feature recipe makes: with its scaler, if any, in front.

    Its outputs are named: `probabilities` and, of a crop network, `embedding`.
    """
    if scaler is None:
        return network
    keras = import_keras()
    # Rescaling, not Normalization: the ONNX export of the latter grows extra inputs.
    # Two of them, so that the mean is subtracted first: in float32, x / s - m / s loses a digit that (x -
    # m) / s keeps.
    centre = keras.layers.Rescaling(1.0, (-scaler.mean_).tolist())
    scale = keras.layers.Rescaling((1 / scaler.scale_).tolist())
    inputs = keras.Input((len(scaler.mean_),), name="features")
    outputs = {"probabilities": network(scale(centre(inputs)), training=False)}
    return keras.Model(inputs, outputs, name=NAME)


def has_half_weights(info: dict) -> bool:
    """Tell whether the LiteRT files of a bundle have float16 weights."""
    return network_of(info) != "landmarks"


def export_tflite(path: Path, part: tuple, info: dict, int8: bool = False) -> None:
    """Write a part as LiteRT model, scaler folded in, metadata packed behind it.

    The parts of a hybrid, and a crop network, are written with float16 weights: half the size, the same speed
    and, to a few thousandths, the same predictions. With `int8`, weights are 8 bit integers (dynamic range).
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
    pack_metadata(path, info)


def export_onnx(path: Path, part: tuple, info: dict) -> None:
    """Write a part as ONNX model, scaler folded in, tensors described, metadata in `metadata_props`."""
    import onnx

    whole = deployable(*part)
    # Keras exports to ONNX only what was called once.
    whole(np.zeros((1, *whole.input_shape[1:]), np.float32))
    with native_log_silenced():
        whole.export(path, format="onnx", verbose=False)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_FILE: metadata_json(info)})
    texts = {
        "features": "float32 (faces, features): aligned landmarks, then blendshapes",
        "crop": "float32 (faces, side, side, 1): the face upright, grey, of normalised contrast",
        "probabilities": f"float32 (faces, classes): {', '.join(info['classes'])}; they sum to 1",
        "embedding": "float32 (faces, size): the last hidden layer, for personal models",
    }
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.doc_string = texts[tensor.name]
        tensor.type.tensor_type.shape.dim[0].dim_param = "faces"
    model.doc_string = "Reads emotions from a face; inputs and outputs: docs/model_io.md"
    onnx.save(model, path)


def open_exported(path: Path):
    """Return a function that runs an exported `.tflite` or `.onnx`: input (n, ...) -> probabilities (n,
    classes). Raises ValueError if an `.onnx` has not exactly one input."""
    if path.suffix != ".onnx":
        part = LiteNetwork(path, path.read_bytes())
        return lambda x: part.predict(x).probabilities
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (only,) = session.get_inputs()
    return lambda x: session.run(["probabilities"], {only.name: x})[0]
