"""Faces -> probabilities: the sole owner of LiteRT. No TensorFlow, no pickle."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import MODELS, UserError, native_log_silenced, relative
from ..faces.crops import network_input
from ..faces.features import compute_features
from .bundle import TFLITE, find_model, read_checked, read_metadata
from .schema import choose_vocabulary, input_shape, smallest_vocabulary

BATCH = 64
"""Crops that go through the network at a time: each becomes 100 KB on its way."""
ROUNDING = 0.01
"""How far probabilities may sum up beside 1: float16 and int8 weights leave the softmax exact to far less."""


@dataclass(frozen=True)
class Prediction:
    """What a model predicts of n faces.

    probabilities: (n, classes) float32, each row sums to 1. embedding: (n, e) float32, the last hidden layer
    of the crop network; None where it has not run.
    """

    probabilities: np.ndarray
    embedding: np.ndarray | None = None


class EmotionClassifier:
    """A trained model on LiteRT: landmarks and crops in, probabilities out.

    `path` is as `find_model` takes it, `classes` as `choose_vocabulary` does. Raises UserError if a file is
    missing, not one of ours, or differs from what its bundle says, and for classes that the model lacks.
    """

    def __init__(self, path: Path | str = MODELS, classes: Sequence[str] | None = None):
        model = find_model(path)
        parts = [LiteNetwork(file, content) for file, content in model.parts.items()]
        self.path = model.path if len(parts) > 1 else parts[0].path
        self.sha256 = {part.path.name: hashlib.sha256(part.content).hexdigest() for part in parts}
        """of each file, by its name"""
        networks = {"crop" if part.features["kind"] == "crop" else "landmarks": part for part in parts}
        self._crop, self._landmarks = networks.get("crop"), networks.get("landmarks")
        alone = "landmarks" if self._landmarks else "crop"
        mixes = len(parts) > 1 and not self._joint
        self._info = model.info if mixes else networks[alone].metadata
        self._weights: dict[str, float] = self._info["weights"] if mixes else {alone: 1.0}
        self.name: str = self._info["name"]
        self.network_classes: tuple[str, ...] = tuple(self._info["classes"])
        """all that the networks tell apart"""
        self._check_parts(parts, model.info)
        self._read_out_by(choose_vocabulary(self._info, classes))

    def narrow_to(self, labels: Sequence[str]) -> None:
        """Read out by the smallest vocabulary that holds these labels from now on: so a model is judged."""
        self._read_out_by(smallest_vocabulary(self._info, labels))

    def _read_out_by(self, vocabulary: dict) -> None:
        self.classes: tuple[str, ...] = tuple(vocabulary["classes"])
        self.threshold: float = vocabulary["threshold"]
        self._temperature: float = vocabulary["temperature"]
        self._columns = [self.network_classes.index(name) for name in self.classes]

    def _check_parts(self, parts: list["LiteNetwork"], info: dict) -> None:
        """Raise UserError unless the parts fit together, and to the bundle's JSON if there is one."""
        predicting = [self._landmarks] if self._joint else parts
        classes = info.get("classes", self._info["classes"])
        if len({part.features["kind"] == "crop" for part in parts}) != len(parts) or any(
            part.metadata["classes"] != classes for part in predicting
        ):
            raise UserError(
                f"the files in {relative(self.path)} are not parts of one model; train again or restore them"
            )
        if self._joint and (
            self._crop is None or self._crop.features["embedding"] != self._landmarks.features["embedding"]
        ):
            raise UserError(
                f"{relative(self._landmarks.path)} needs the crop network of its training beside it; "
                "name the folder that holds both"
            )

    @property
    def _joint(self) -> bool:
        """Whether this is a personal model whose last layer sees both the landmarks and the embedding."""
        return self._landmarks is not None and "embedding" in self._landmarks.features

    @property
    def needs_crops(self) -> bool:
        """Tell whether the model has a crop network."""
        return self._crop is not None

    @property
    def crop_sha256(self) -> str:
        """The sha256 of the crop network's file, which an embedding belongs to; empty if there is none."""
        return self.sha256[self._crop.path.name] if self._crop else ""

    def predict(
        self,
        landmarks: np.ndarray,
        blendshapes: np.ndarray,
        crops: np.ndarray | None = None,
        crop_output: Prediction | None = None,
    ) -> Prediction:
        """Predict the emotions of n faces.

        landmarks: (n, 478, 3) and blendshapes: (n, 52) float32. crops: array-like (n, CROP_PX, CROP_PX)
        uint8. crop_output: result of `predict_crops` for the same faces, in place of crops, so that the crop
        network need not run again. Raises ValueError if the model needs crops and there are none.
        """
        if len(landmarks) == 0:
            return Prediction(np.empty((0, len(self.classes)), np.float32))
        if self._crop and crop_output is None:
            if crops is None:
                raise ValueError("this model needs crops of the faces; none were given")
            crop_output = self.predict_crops(crops)
        embedding = crop_output.embedding if crop_output else None
        found = {"crop": crop_output.probabilities} if crop_output else {}
        if self._landmarks:
            x = compute_features(landmarks, blendshapes, self._landmarks.features)
            x = np.concatenate([x, embedding], axis=1) if self._joint else x
            found["landmarks"] = self._landmarks.predict(x).probabilities
        parts = [(weight, found[name][:, self._columns]) for name, weight in self._weights.items()]
        return Prediction(mix(parts, self._temperature), embedding)

    def predict_crops(self, crops: np.ndarray) -> Prediction:
        """Predict all classes by the crop network alone; crops: array-like (n, CROP_PX, CROP_PX) uint8."""
        return self._crop.predict_crops(crops)


def part_input(folder: Path, features: dict, faces) -> np.ndarray:
    """Return the input (n, ...) float32 of a part of a bundle.

    features: the part's recipe; faces: an object with landmarks, blendshapes and crop. A personal model's
    last layer also sees the embedding of the crop network in its folder.
    """
    if features["kind"] == "crop":
        return network_input(np.asarray(faces.crop), features)
    x = compute_features(faces.landmarks, faces.blendshapes, features)
    if "embedding" not in features:
        return x
    return np.concatenate(
        [x, LiteNetwork(folder / TFLITE["crop"]).predict_crops(faces.crop).embedding], axis=1
    )


def mix(parts: Sequence[tuple[float, np.ndarray]], temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities (n, classes) float32 of networks as one: their weighted geometric mean.

    parts: weight and probabilities (n, classes) of each; the logarithm is divided by the temperature.
    """
    logits = sum(weight * np.log(np.maximum(values, 1e-9)) for weight, values in parts) / temperature
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponential / exponential.sum(axis=1, keepdims=True)).astype(np.float32)


class LiteNetwork:
    """One `.tflite` file, checked and opened.

    `metadata`: what the file says of itself; `features`: how its input is made of faces, by
    `compute_features` or `network_input`.
    """

    def __init__(self, path: Path, content: bytes | None = None):
        """content: the file's bytes, if they were checked already; else they are read and checked."""
        from ai_edge_litert.interpreter import Interpreter

        self.path = path
        self.content = read_checked(path) if content is None else content
        self.metadata = read_metadata(path, self.content)
        self.features = self.metadata["features"]
        if "reference" in self.features:  # once, not for every frame
            self.features["reference"] = np.asarray(self.features["reference"], np.float32)
        try:
            with native_log_silenced():
                # By its content: so it is what was checked, and no open file hinders a new model on Windows.
                interpreter = Interpreter(model_content=self.content, num_threads=1)
                self._network = interpreter.get_signature_runner()
                self._input = self._check_tensors()
                self.predict(np.zeros((1, *input_shape(self.features)), np.float32))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"LiteRT can't load {relative(path)} ({error}); run: python scr/export_model.py"
            ) from error

    def _check_tensors(self) -> str:
        """Return the input's name; raises ValueError unless input and outputs are as the metadata says."""
        inputs, outputs = self._network.get_input_details(), self._network.get_output_details()
        expected = {"input": input_shape(self.features), "probabilities": (len(self.metadata["classes"]),)}
        if self.features["kind"] == "crop":
            expected["embedding"] = (self.features["embedding"],)
        tensors = {"input" if len(inputs) == 1 else name: one for name, one in inputs.items()}
        tensors |= {output_name(name, len(outputs)): one for name, one in outputs.items()}
        found = {name: tuple(map(int, one["shape"][1:])) for name, one in tensors.items()}
        if found != expected or any(one["dtype"] != np.float32 for one in tensors.values()):
            raise ValueError(f"it has {found}, but says {expected}")
        return next(iter(inputs))

    def predict(self, x: np.ndarray) -> Prediction:
        """Predict from an input (n, ...) float32; raises UserError if the outputs are no probabilities."""
        outputs = self._network(**{self._input: x})
        found = Prediction(**{output_name(name, len(outputs)): value for name, value in outputs.items()})
        # NaN fails each comparison. An embedding of NaN gives probabilities of NaN in the same network.
        sums, lowest = found.probabilities.sum(axis=1), found.probabilities.min()
        if not ((abs(sums - 1) < ROUNDING).all() and lowest >= 0):
            raise UserError(
                f"{relative(self.path)} predicts no probabilities (each from 0 to 1, sum 1); train again or "
                "restore it"
            )
        return found

    def predict_crops(self, crops: np.ndarray) -> Prediction:
        """Predict from crops, array-like (n, CROP_PX, CROP_PX) uint8."""
        batches = [
            self.predict(network_input(np.asarray(crops[start : start + BATCH]), self.features))
            for start in range(0, len(crops), BATCH)
        ]
        return Prediction(
            np.concatenate([batch.probabilities for batch in batches]),
            np.concatenate([batch.embedding for batch in batches]),
        )


def output_name(name: str, outputs: int) -> str:
    """Return what a network's output is: a single one is the probabilities, whatever Keras called it."""
    return name if outputs > 1 else "probabilities"
