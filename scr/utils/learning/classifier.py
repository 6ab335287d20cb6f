"""Features -> probabilities, live: the sole owner of LiteRT. No TensorFlow, no pickle."""

from pathlib import Path

import numpy as np

from utils.config import MODELS, UserError, native_log_silenced, relative
from utils.faces.features import compute_features, neutral_offset
from utils.learning.bundle import check_file, find_tflite, read_metadata


class EmotionClassifier:
    """A trained network on LiteRT: landmarks in, probabilities out.

    `path` is a `.tflite` file, a bundle's folder, or the name of a personal model. Raises UserError if it
    is missing, not one of ours, or differs from what its bundle says.
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
            raise UserError(
                f"LiteRT can't load {relative(self.path)} ({error}); run: python scr/export_model.py"
            ) from error

    def _allocate(self, batch: int) -> None:
        details = self._interpreter.get_input_details()[0]
        self._interpreter.resize_tensor_input(details["index"], [batch, details["shape_signature"][1]])
        self._interpreter.allocate_tensors()
        self._input, self._output = details["index"], self._interpreter.get_output_details()[0]["index"]
        self._batch = batch

    def predict(
        self, landmarks: np.ndarray, blendshapes: np.ndarray | None = None, offset: np.ndarray | None = None
    ) -> np.ndarray:
        """Return probabilities (n, classes) float32 of landmarks (n, 478, 3) and blendshapes (n, 52),
        both float32.

        offset: `neutral_offset` of the person whose faces they are.
        """
        if len(landmarks) == 0:
            return np.empty((0, len(self.classes)), np.float32)
        return self.predict_features(compute_features(landmarks, blendshapes, self._features, offset))

    @property
    def knows_neutral(self) -> bool:
        """Tell whether the model can take a person's neutral face as baseline."""
        return "neutral" in self._features

    def neutral_offset(self, landmarks: np.ndarray, blendshapes: np.ndarray | None = None) -> np.ndarray:
        """Return the offset (d,) for `predict` from a person's neutral face, landmarks (n, 478, 3) and
        blendshapes (n, 52)."""
        return neutral_offset(compute_features(landmarks, blendshapes, self._features), self._features)

    def predict_features(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities (n, classes) float32 of features (n, d) float32."""
        if len(features) != self._batch:
            self._allocate(len(features))
        self._interpreter.set_tensor(self._input, features)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)
