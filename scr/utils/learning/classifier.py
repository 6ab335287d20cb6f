"""Features -> probabilities. The sole owner of Keras and LiteRT: build, fit, save, load, predict.

A model is a bundle, a folder with `emotion_mlp.json` and the files whose sha256 it lists. Whatever loads a file
checks it first. Live use needs the `.tflite` alone: the scaler is folded in, and its classes and feature recipe ride
along as a file in a zip archive behind the flat buffer, as TFLite Metadata packs its associated files.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from utils.config import MODELS, PERSONAL_MODELS, UserError, atomic_path, native_log_silenced, relative, write_json
from utils.features import compute_features, own_offset

NAME = "emotion_mlp"
LEAST_BATCHES = 64
"""Batches of an epoch that are drawn at least."""
METADATA_FILE = "emotion.json"
"""Name of the metadata inside a `.tflite`, and key of it in an `.onnx`."""
_METADATA_KEYS = ("name", "classes", "features", "threshold")
_PACKAGES = ("tensorflow", "keras", "mediapipe", "numpy", "scikit-learn", "ai-edge-litert")


# ---- live use: LiteRT, no TensorFlow, no pickle


class EmotionClassifier:
    """A trained network on LiteRT: landmarks in, probabilities out.

    `path` is a `.tflite` file, a bundle's folder, or the name of a personal model. Raises UserError if it is missing,
    not one of ours, or differs from what its bundle says.
    """

    def __init__(self, path: Path | str = MODELS):
        from ai_edge_litert.interpreter import Interpreter

        self.path = find_tflite(path)
        check_file(self.path)
        metadata = read_metadata(self.path)
        self.name: str = metadata["name"]
        self.classes: tuple[str, ...] = tuple(metadata["classes"])
        self.threshold: float = metadata["threshold"]
        self._features = metadata["features"]
        if "reference" in self._features:  # once, not for every frame
            self._features["reference"] = np.asarray(self._features["reference"], np.float32)
        try:
            with native_log_silenced():
                self._interpreter = Interpreter(str(self.path), num_threads=1)
                self._allocate(1)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"LiteRT can't load {relative(self.path)} ({error}); run: python scr/export_model.py") from error

    def _allocate(self, batch: int) -> None:
        details = self._interpreter.get_input_details()[0]
        self._interpreter.resize_tensor_input(details["index"], [batch, details["shape_signature"][1]])
        self._interpreter.allocate_tensors()
        self._input, self._output = details["index"], self._interpreter.get_output_details()[0]["index"]
        self._batch = batch

    def predict(self, landmarks: np.ndarray, blendshapes: np.ndarray | None = None, offset: np.ndarray | None = None) -> np.ndarray:
        """Return probabilities (n, classes) float32 of landmarks (n, 478, 3) and blendshapes (n, 52), both float32.

        offset: `own_offset` of the person whose faces they are.
        """
        if len(landmarks) == 0:
            return np.empty((0, len(self.classes)), np.float32)
        return self.predict_features(compute_features(landmarks, blendshapes, self._features, offset))

    @property
    def knows_neutral(self) -> bool:
        """Tell whether the model can take a person's own neutral face as reference."""
        return "neutral" in self._features

    def own_offset(self, landmarks: np.ndarray, blendshapes: np.ndarray | None = None) -> np.ndarray:
        """Return the offset (d,) for `predict` from a person's neutral face, landmarks (n, 478, 3) and blendshapes (n, 52)."""
        return own_offset(compute_features(landmarks, blendshapes, self._features), self._features)

    def predict_features(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities (n, classes) float32 of features (n, d) float32."""
        if len(features) != self._batch:
            self._allocate(len(features))
        self._interpreter.set_tensor(self._input, features)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


def find_tflite(path: Path | str) -> Path:
    """Return the `.tflite` that `path` means: a file, a bundle's folder, or the name of a personal model."""
    given = Path(path)
    candidates = [given, PERSONAL_MODELS / given] if not given.is_absolute() else [given]
    for candidate in candidates:
        if candidate.is_dir() and (candidate / f"{NAME}.tflite").is_file():
            return candidate / f"{NAME}.tflite"
        if candidate.is_file():
            if candidate.suffix != ".tflite":
                raise UserError(f"{relative(candidate)} is not a .tflite model; run: python scr/export_model.py")
            return candidate
    if re.fullmatch(r"[\w-]+", str(path)) and not given.exists():
        raise UserError(f"no model named {path}; run: python scr/train_personal.py --subject {path}")
    missing = given / f"{NAME}.tflite" if given.is_dir() or given == MODELS else given
    raise UserError(f"no model at {relative(missing)}; run: python scr/train_model.py")


def read_metadata(path: Path) -> dict:
    """Return the classes, feature recipe, name and threshold packed in a `.tflite`; raises UserError if there are none."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read(METADATA_FILE))
        return {key: metadata[key] for key in _METADATA_KEYS}
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"{relative(path)} has no emotion classes in it (damaged, or not exported by this project); "
                        "run: python scr/export_model.py") from error


def check_file(path: Path) -> None:
    """Compare a file with the bundle's JSON beside it; raises UserError that names the file if it differs."""
    bundle = path.with_name(f"{NAME}.json")
    if not bundle.is_file():
        return
    expected = load_info(path.parent)["sha256"].get(path.name)
    if expected and expected != hashlib.sha256(path.read_bytes()).hexdigest():
        raise UserError(f"{relative(path)} is not the file that {bundle.name} beside it describes (sha256 differs); "
                        "train again or restore both")


# ---- bundles


def load_info(folder: Path) -> dict:
    """Return a bundle's JSON; raises UserError if it is missing or damaged."""
    path = folder / f"{NAME}.json"
    if not path.is_file():
        raise UserError(f"no model at {relative(path)}; run: python scr/train_model.py")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if missing := {*_METADATA_KEYS, "sha256"} - set(info):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except ValueError as error:
        raise UserError(f"{relative(path)} is damaged ({error}); train again or restore it") from error
    return info


def load_bundle(folder: Path) -> tuple:
    """Return (network, scaler, info) of a bundle; each file is checked against the JSON before it is opened."""
    import joblib

    keras = import_keras()
    info = load_info(folder)
    network_path, scaler_path = folder / f"{NAME}.keras", folder / "scaler.pkl"
    for path in (network_path, scaler_path):
        if not path.is_file() or path.name not in info["sha256"]:
            raise UserError(f"no {relative(path)}; run: python scr/train_model.py")
        check_file(path)  # a pickle runs code when it is opened: not before its checksum is right
    return keras.saving.load_model(network_path, compile=False, safe_mode=True), joblib.load(scaler_path), info


def save_bundle(folder: Path, network, scaler, info: dict) -> None:
    """Write a whole bundle: network, scaler, LiteRT model and last the JSON that lists their sha256."""
    import joblib

    info = info | {"versions": {name: importlib.metadata.version(name) for name in _PACKAGES}}
    with ExitStack() as stack:  # renamed in reverse order, so the JSON last, when all are written
        json_path, network_path, scaler_path, tflite_path = (
            stack.enter_context(atomic_path(folder / name))
            for name in (f"{NAME}.json", f"{NAME}.keras", "scaler.pkl", f"{NAME}.tflite"))
        network.save(network_path)
        joblib.dump(scaler, scaler_path)
        export_tflite(tflite_path, network, scaler, info)
        files = {f"{NAME}.keras": network_path, "scaler.pkl": scaler_path, f"{NAME}.tflite": tflite_path}
        info["sha256"] = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        json_path.write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def add_to_bundle(folder: Path, paths: Sequence[Path]) -> None:
    """Enter the sha256 of further files (exports) into a bundle's JSON."""
    info = load_info(folder)
    info["sha256"] |= {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    write_json(folder / f"{NAME}.json", info)


# ---- training: Keras


def import_keras():
    """Return keras on the TensorFlow backend, without TensorFlow's start-up chatter."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_log_silenced():
        import keras
        import tensorflow
    tensorflow.get_logger().setLevel("ERROR")  # it complains of retracing when several small networks are trained
    return keras


def set_seed(seed: int) -> None:
    """Make the runs that follow repeatable to the bit (on one machine and one version of TensorFlow)."""
    import_keras().utils.set_random_seed(seed)
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()


def build_network(features: int, classes: int, layers: Sequence[tuple[int, float, bool]], input_noise: float = 0.0,
                  weight_decay: float = 0.0):
    """Return an MLP on standardised features: `layers` of (units, dropout, batch norm), then a softmax of `classes`."""
    keras = import_keras()
    penalty = keras.regularizers.L2(weight_decay) if weight_decay else None
    network = keras.Sequential([keras.Input((features,))])
    if input_noise:
        network.add(keras.layers.GaussianNoise(input_noise))
    for units, dropout, batch_norm in layers:
        network.add(keras.layers.Dense(units, activation="relu", kernel_regularizer=penalty))
        if batch_norm:
            network.add(keras.layers.BatchNormalization())
        if dropout:
            network.add(keras.layers.Dropout(dropout))
    network.add(keras.layers.Dense(classes, activation="softmax", kernel_regularizer=penalty, name="probabilities"))
    return network


def fit_networks(networks: Sequence, train: tuple, val: tuple, learning_rate: float, epochs: int, batch_size: int, patience: int,
                 within_family: float = 0.0, draw_seed: int | None = None, progress: bool = True) -> dict[str, list[float]]:
    """Train networks side by side with Adam; return the learning curves: loss, accuracy, val_loss, val_accuracy by epoch.

    train and val are (features (n, d), target (n, 2 * classes), weight (n,)), the target as `training.targets` gives it. With
    `patience`, ReduceLROnPlateau and EarlyStopping (best weights restored) watch the validation loss; without, the rate warms
    up and falls as a cosine over all epochs. With `draw_seed`, batches are drawn by weight, so that rare classes are seen as
    often as common ones; else each face is seen once an epoch and the weight multiplies its loss.
    """
    keras = import_keras()
    inputs = keras.Input(networks[0].input_shape[1:])
    joint = keras.Model(inputs, keras.ops.stack([network(inputs) for network in networks], axis=1))
    classes, batches = networks[0].output_shape[1], -(-len(train[0]) // batch_size)
    if draw_seed is not None:  # what is drawn has no end: a small set gets as many steps as it takes to learn
        batches = max(batches, LEAST_BATCHES)
    callbacks = [_progress_bar(keras, epochs)] if progress else []
    if patience:
        callbacks += [keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True),
                      keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=max(1, patience // 3))]
    else:
        steps = epochs * batches
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate / 25, max(1, steps - steps // 10),
                                                               warmup_target=learning_rate, warmup_steps=max(1, steps // 10))

    def loss(target, probabilities):  # target (b, 2 * classes), probabilities (b, networks, classes)
        log_likelihood = _log_likelihood(keras, target[:, None], probabilities, classes, within_family)
        return -keras.ops.sum(target[:, None, :classes] * log_likelihood, axis=(1, 2))

    def accuracy(target, probabilities):
        return keras.metrics.categorical_accuracy(target[:, :classes], keras.ops.mean(probabilities, axis=1))

    joint.compile(keras.optimizers.Adam(learning_rate), loss, weighted_metrics=[accuracy])
    if draw_seed is None:
        fed = {"x": train[0], "y": train[1], "sample_weight": train[2], "batch_size": batch_size}
    else:
        fed = {"x": _drawn_batches(train, batch_size, epochs * batches, draw_seed), "steps_per_epoch": batches, "shuffle": False}
    history = joint.fit(**fed, validation_data=val, validation_batch_size=4096, epochs=epochs, verbose=0, callbacks=callbacks)
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def _drawn_batches(data: tuple, batch_size: int, batches: int, seed: int):
    """Return a data set of `batches` batches of (features, target), drawn with replacement by weight."""
    import tensorflow

    x, target, weight = data
    drawn = np.random.default_rng(seed).random((batches, batch_size))
    rows = np.minimum(np.searchsorted(np.cumsum(weight / weight.sum()), drawn), len(x) - 1)
    x, target = tensorflow.constant(x), tensorflow.constant(target)
    return tensorflow.data.Dataset.from_tensor_slices(rows).map(
        lambda row: (tensorflow.gather(x, row), tensorflow.gather(target, row)))


def _log_likelihood(keras, target, probabilities, classes: int, within_family: float):
    """Return log-probabilities, a share of them taken among the classes of the face's file family only."""
    whole = keras.ops.log(probabilities + 1e-7)
    if not within_family:
        return whole
    among = probabilities * target[..., classes:] + 1e-7
    return (1 - within_family) * whole + within_family * keras.ops.log(among / keras.ops.sum(among, axis=-1, keepdims=True))


def predict_network(network, x: np.ndarray) -> np.ndarray:
    """Return a network's probabilities (n, classes) of standardised features (n, d)."""
    return network.predict(x, batch_size=4096, verbose=0)


def assemble(networks: Sequence, projection: np.ndarray | None = None):
    """Return one network from several with one hidden layer, after a fixed projection (features, components) if given.

    Hidden layers stand side by side and the last layers are averaged, so it gives the normalised geometric mean of their
    answers. A single network, of any depth, is copied.
    """
    keras = import_keras()
    first = networks[0]
    whole = keras.Sequential([keras.Input((first.input_shape[1] if projection is None else len(projection),))], name=NAME)

    def add(layer, weights: list) -> None:
        whole.add(layer)
        layer.set_weights(weights)

    if projection is not None:
        add(keras.layers.Dense(projection.shape[1], use_bias=False, trainable=False, name="projection"), [projection])
    single = len(networks) == 1
    for layer in first.layers if single else first.layers[:-2]:
        add(type(layer).from_config(layer.get_config()), layer.get_weights())
    if single:
        return whole
    hidden, last = ([network.layers[position].get_weights() for network in networks] for position in (-2, -1))
    penalty = first.layers[-1].kernel_regularizer
    add(keras.layers.Dense(sum(len(bias) for _, bias in hidden), activation="relu", kernel_regularizer=penalty),
        [np.concatenate([weights[part] for weights in hidden], axis=-1) for part in (0, 1)])
    add(keras.layers.Dense(len(last[0][1]), activation="softmax", kernel_regularizer=penalty, name="probabilities"),
        [np.concatenate([kernel for kernel, _ in last]) / len(last), np.mean([bias for _, bias in last], axis=0)])
    return whole


def divide_logits(network, temperature: float) -> None:
    """Scale a network's last layer so that its softmax is taken at a temperature."""
    network.layers[-1].set_weights([values / temperature for values in network.layers[-1].get_weights()])


def copy_network(network, reset: bool = False):
    """Return a copy of a network with its weights, or with fresh ones."""
    copy = type(network).from_config(network.get_config())  # clone_model would want the loss function back by its name
    for old, new in zip(network.layers, copy.layers, strict=True):
        if not (reset and old.trainable):  # the projection is no weight to be learned: it stays
            new.set_weights(old.get_weights())
    return copy


def freeze_early_layers(network, trainable: int | None) -> None:
    """Leave only the last `trainable` Dense layers (and what stands between them) trainable; None: all that were."""
    keras = import_keras()
    dense = [index for index, layer in enumerate(network.layers) if isinstance(layer, keras.layers.Dense) and layer.trainable]
    first = 0 if trainable is None or trainable >= len(dense) else dense[-trainable]
    for layer in network.layers[:first]:
        layer.trainable = False


def fine_tune(network, train: tuple, learning_rate: float, steps: int, batch_size: int = 32) -> None:
    """Train on a few samples (features, class index, weight) for a fixed number of steps."""
    batch_size = min(batch_size, len(train[0]))
    generator = np.random.default_rng(0)
    passes = -(-steps * batch_size // len(train[0]))
    rows = np.concatenate([generator.permutation(len(train[0])) for _ in range(passes)])[:steps * batch_size]
    network.compile(import_keras().optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    # All passes in one epoch: with a dozen samples, Keras spends its time between epochs.
    network.fit(*(values[rows] for values in train[:2]), sample_weight=train[2][rows], epochs=1, batch_size=batch_size,
                shuffle=False, verbose=0)


def _progress_bar(keras, epochs: int):
    from tqdm import tqdm

    class ProgressBar(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.bar = tqdm(total=epochs, unit="epoch", desc="training")

        def on_epoch_end(self, epoch, logs=None):
            self.bar.set_postfix({name: f"{logs[name]:.3f}" for name in ("loss", "val_loss", "val_accuracy")}, refresh=False)
            self.bar.update()

        def on_train_end(self, logs=None):
            self.bar.close()

    return ProgressBar()


# ---- export


def deployable(network, scaler):
    """Return the network with the scaler in front: features as `compute_features` gives them -> probabilities."""
    keras = import_keras()
    # Rescaling, not Normalization: the ONNX export of the latter grows extra inputs.
    # Two of them, so that the mean is subtracted first: in float32, x / s - m / s loses a digit that (x - m) / s keeps.
    centre = keras.layers.Rescaling(1.0, (-scaler.mean_).tolist())
    scale = keras.layers.Rescaling((1 / scaler.scale_).tolist())
    inputs = keras.Input((len(scaler.mean_),), name="features")
    return keras.Model(inputs, network(scale(centre(inputs)), training=False), name=NAME)


def export_tflite(path: Path, network, scaler, info: dict, int8: bool = False) -> None:
    """Write a LiteRT model, float32 or with dynamic-range int8 weights, scaler folded in, metadata packed behind it."""
    import tensorflow

    options = {"optimizations": [tensorflow.lite.Optimize.DEFAULT]} if int8 else {}
    with native_log_silenced():
        deployable(network, scaler).export(path, format="litert", verbose=False, **options)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA_FILE), _metadata_json(info))


def export_onnx(path: Path, network, scaler, info: dict) -> None:
    """Write an ONNX model, scaler folded in, metadata in `metadata_props`."""
    import onnx

    whole = deployable(network, scaler)
    whole(np.zeros((1, len(scaler.mean_)), np.float32))  # Keras exports to ONNX only what was called once
    with native_log_silenced():
        whole.export(path, format="onnx", verbose=False)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_FILE: _metadata_json(info)})
    onnx.save(model, path)


def _metadata_json(info: dict) -> str:
    return json.dumps({key: info[key] for key in _METADATA_KEYS})


def open_exported(path: Path):
    """Return a function features (n, d) -> probabilities (n, classes) that runs an exported `.tflite` or `.onnx`.

    Raises ValueError if the file has not exactly one input and one output.
    """
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        _expect_one(path, session.get_inputs(), session.get_outputs())
        name = session.get_inputs()[0].name
        return lambda features: session.run(None, {name: features})[0]
    classifier = EmotionClassifier(path)
    _expect_one(path, classifier._interpreter.get_input_details(), classifier._interpreter.get_output_details())
    return classifier.predict_features


def _expect_one(path: Path, inputs: Sequence, outputs: Sequence) -> None:
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each")
