"""Faces -> probabilities, live: the sole owner of LiteRT. No TensorFlow, no pickle."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..config import MODELS, UserError, native_log_silenced, relative
from ..faces.crops import network_input
from ..faces.features import compute_features, neutral_offset
from .bundle import TFLITE, find_model, read_checked, read_metadata
from .contract import input_shape

CHUNK = 64
"""Crops that are worked on at a time: each becomes 100 KB on its way."""


class EmotionClassifier:
    """A trained model on LiteRT: landmarks and crops in, probabilities out.

    `path` is as `find_model` takes it. Raises UserError if a file is missing, not one of ours, or differs
    from what its bundle says.
    """

    def __init__(self, path: Path | str = MODELS):
        model = find_model(path)
        self.path, info = model.path, model.info
        parts = [LiteNetwork(file, content) for file, content in model.parts.items()]
        if len(parts) == 1:
            self.path, info = parts[0].path, parts[0].metadata
        self.name: str = info["name"]
        self.classes: tuple[str, ...] = tuple(info["classes"])
        self.threshold: float = info["threshold"]
        self._weights: dict = info.get("weights", {})
        self._temperature: float = info.get("temperature", 1.0)
        kinds = {part.features["kind"] == "crop": part for part in parts}
        self._crop, self._landmarks = kinds.get(True), kinds.get(False)
        self._check_parts(parts)

    def _check_parts(self, parts: list["LiteNetwork"]) -> None:
        """Raise UserError unless the parts fit together."""
        answering = [self._landmarks] if self._joint else parts
        if len({part.features["kind"] == "crop" for part in parts}) != len(parts) or any(
            tuple(part.metadata["classes"]) != self.classes for part in answering
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
        """Tell whether the model looks at crops of the faces."""
        return self._crop is not None

    @cached_property
    def crop_sha256(self) -> str:
        """The sha256 of the crop network's file, which an embedding belongs to; empty if there is none."""
        return hashlib.sha256(self._crop.content).hexdigest() if self._crop else ""

    def predict(
        self,
        landmarks: np.ndarray,
        blendshapes: np.ndarray | None = None,
        offset: np.ndarray | None = None,
        crops: np.ndarray | None = None,
        looked: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return probabilities (n, classes) float32 of faces.

        landmarks (n, 478, 3) and blendshapes (n, 52) float32; offset: `neutral_offset` of the person whose
        faces they are; crops (n, CROP_PX, CROP_PX) uint8; looked: what `look` made of these faces before, in
        place of crops. Without crops a hybrid answers by the landmarks alone; raises ValueError for a model
        that can't.
        """
        if len(landmarks) == 0:
            return np.empty((0, len(self.classes)), np.float32)
        if crops is None and looked is None and (self._joint or self._landmarks is None):
            raise ValueError("this model looks at crops of the faces; none were given")
        if looked is None and crops is not None and self._crop:
            looked = self.look(crops)
        of_crop, embedding = looked or (None, None)
        if self._landmarks is None:
            return of_crop
        features = compute_features(landmarks, blendshapes, self._landmarks.features, offset)
        if self._joint:  # a personal model: its last layer sees both
            return self._landmarks.run(np.concatenate([features, embedding], axis=1))[0]
        of_landmarks = self._landmarks.run(features)[0]
        if of_crop is None:
            return of_landmarks
        weights = self._weights
        return mix([(weights["landmarks"], of_landmarks), (weights["crop"], of_crop)], self._temperature)

    def look(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the crop network alone makes of crops (n, CROP_PX, CROP_PX) uint8: probabilities
        (n, classes) and its last hidden layer (n, embedding)."""
        return self._crop.read_crops(crops)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return the crop network's last hidden layer (n, embedding) of crops (n, CROP_PX, CROP_PX) uint8."""
        return self.look(crops)[1]

    @property
    def knows_neutral(self) -> bool:
        """Tell whether the model can take a person's neutral face as baseline."""
        return self._landmarks is not None and "neutral" in self._landmarks.features

    def neutral_offset(self, landmarks: np.ndarray, blendshapes: np.ndarray | None = None) -> np.ndarray:
        """Return the offset (d,) for `predict` from a person's neutral face, landmarks (n, 478, 3) and
        blendshapes (n, 52)."""
        features = self._landmarks.features
        return neutral_offset(compute_features(landmarks, blendshapes, features), features)


def part_input(folder: Path, features: dict, faces) -> np.ndarray:
    """Return what a part of a bundle is given of faces, (n, ...) float32.

    features: the part's recipe; faces: an object with landmarks, blendshapes and crop. A personal model's
    last layer also sees the embedding of the crop network in its folder.
    """
    if features["kind"] == "crop":
        return network_input(faces.crop[:], features)
    x = compute_features(faces.landmarks, faces.blendshapes, features)
    if "embedding" not in features:
        return x
    return np.concatenate([x, LiteNetwork(folder / TFLITE["crop"]).read_crops(faces.crop)[1]], axis=1)


def mix(parts: Sequence[tuple[float, np.ndarray]], temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities (n, classes) float32 of networks as one: their weighted geometric mean.

    parts: weight and probabilities (n, classes) of each; the logarithm is divided by the temperature.
    """
    logits = sum(weight * np.log(np.maximum(values, 1e-9)) for weight, values in parts) / temperature
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponential / exponential.sum(axis=1, keepdims=True)).astype(np.float32)


class LiteNetwork:
    """One `.tflite` file, checked and opened.

    `features`: how its input is made, by `compute_features` or `network_input`.
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
                self.interpreter = Interpreter(model_content=self.content, num_threads=1)
                self._check_shapes()
                self._allocate(1)
                if not np.isfinite(self.ask()).all():
                    raise ValueError("its answers are no numbers")
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"LiteRT can't load {relative(path)} ({error}); run: python scr/export_model.py"
            ) from error

    def _check_shapes(self) -> None:
        """Raise ValueError unless the network takes what its recipe makes, and answers with its classes."""
        (taken,), outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        sizes = [len(self.metadata["classes"])]
        if self.features["kind"] == "crop":
            sizes.append(self.features["embedding"])
        expected = {"input": (None, *input_shape(self.features)), "outputs": sorted(sizes)}
        found = {
            "input": (None, *map(int, taken["shape"][1:])),
            "outputs": sorted(int(output["shape"][-1]) for output in outputs),
        }
        if found != expected or any(one["dtype"] != np.float32 for one in (taken, *outputs)):
            raise ValueError(f"it has {found}, but says {expected}")

    def ask(self) -> np.ndarray:
        """Return the answer (1, classes) to zeros: the mean grey of crops, or the mean face's features."""
        return self.run(np.zeros((1, *input_shape(self.features)), np.float32))[0]

    def _allocate(self, batch: int) -> None:
        details = self.interpreter.get_input_details()[0]
        self.interpreter.resize_tensor_input(details["index"], [batch, *details["shape_signature"][1:]])
        self.interpreter.allocate_tensors()
        self._input, self._batch = details["index"], batch
        # The crop network also gives its last hidden layer, which is wider than the classes.
        outputs = sorted(self.interpreter.get_output_details(), key=lambda output: output["shape"][-1])
        self._outputs = [output["index"] for output in outputs]

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """Return the probabilities (n, classes) of an input (n, ...) float32, then the embedding if any."""
        if len(x) != self._batch:
            self._allocate(len(x))
        self.interpreter.set_tensor(self._input, x)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(index) for index in self._outputs]

    def read_crops(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (n, classes) and embedding (n, e) of crops (n, CROP_PX, CROP_PX) uint8."""
        parts = []
        for start in range(0, len(crops), CHUNK):
            parts.append(self.run(network_input(crops[start : start + CHUNK], self.features)))
        return tuple(np.concatenate(values) for values in zip(*parts))
