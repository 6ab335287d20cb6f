"""A model of one or two networks: landmarks, crop, or the hybrid of both. Trained, asked and calibrated here.

`train_model.py` and `evaluate.py --leave-one-source-out` both train by `train`, so what is judged is what
is shipped.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..config import DATA, SEED, UserError
from ..data.face_set import FaceSet
from ..evaluation.metrics import answer_threshold
from ..files import scratch_folder
from ..model.bundle import PARTS
from ..model.classifier import mix
from . import crop_augmentation, crop_network, landmark_network
from .crop_network import CropRecipe, Heads


@dataclass(frozen=True)
class ModelRecipe:
    """How a model of any network is trained: the recipe of each part, and how the parts are mixed."""

    landmarks: landmark_network.Recipe
    crop: CropRecipe = field(default_factory=CropRecipe)
    weights: dict[str, float] = field(default_factory=lambda: {"landmarks": 0.3, "crop": 0.7})
    """of the parts' log-probabilities in the hybrid"""


MOST_MAPS = 100_000
"""Faces whose maps are stored, 10 GB: those that heads learn from (`CropRecipe.most_faces`) and others."""
RECIPES = {name: ModelRecipe(recipe) for name, recipe in landmark_network.RECIPES.items()}
RECIPES["fine-tuned"] = ModelRecipe(
    landmark_network.RECIPES["default"], CropRecipe(fine_tuned_faces=100_000), {"landmarks": 0.2, "crop": 0.8}
)


@dataclass(frozen=True)
class TrainedCrop:
    """Heads on a trunk with all that it takes to use and to describe them."""

    heads: Heads
    temperature: float
    threshold: float
    classes: tuple[str, ...]

    @property
    def history(self) -> dict[str, list[float]]:
        """The learning curves."""
        return self.heads.history

    def predict(self, data: FaceSet) -> np.ndarray:
        """Return the probabilities (n, classes) of a set with crops and maps."""
        return softmax(self.heads.logits(data) / self.temperature)


@dataclass(frozen=True)
class TrainedModel:
    """The trained parts of a model and how they are mixed."""

    network: str
    classes: tuple[str, ...]
    parts: dict[str, landmark_network.Trained | TrainedCrop]
    weights: dict[str, float]
    temperature: float = 1.0
    threshold: float = 0.0

    def predict(self, data: FaceSet) -> np.ndarray:
        """Return the probabilities (n, classes) of a set; a crop network wants crops and maps."""
        return mix(
            [(self.weights[name], part.predict(data)) for name, part in self.parts.items()], self.temperature
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (n, classes) of logits (n, classes)."""
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


def require_crops(data: FaceSet, network: str) -> None:
    """Raise UserError if a network looks at crops and a set has none."""
    if "crop" in PARTS[network] and data.crop is None:
        raise UserError(
            f"the network '{network}' looks at crops of the faces and these sets hold none; make them again: "
            "python scr/extract_landmarks.py --help, or add --network landmarks"
        )


@contextlib.contextmanager
def maps_of(
    data: FaceSet,
    network: str,
    recipe: ModelRecipe = RECIPES["default"],
    seed: int = SEED,
    progress: bool = True,
) -> Iterator[FaceSet]:
    """Yield the set with the trunk's maps beside its crops, in a file that is deleted at the end.

    A set is given back as it is for a network that does not look at crops. Heads learn on a frozen trunk, so
    each face takes its way once, however often heads are trained on it. Of a set of more than `MOST_MAPS`
    faces those that `train` with this recipe and seed learns from are stored first; maps of the rest are
    computed when they are asked for. Raises UserError as `require_crops` does.
    """
    require_crops(data, network)
    if "crop" not in PARTS[network] or data.maps is not None:
        yield data
        return
    with scratch_folder(DATA) as folder:
        kept = faces_to_keep(data, recipe, seed) if len(data) > MOST_MAPS else None
        yield replace(data, maps=crop_network.compute_maps(data.crop, folder / "maps", kept, progress))


def faces_to_keep(data: FaceSet, recipe: ModelRecipe, seed: int) -> np.ndarray:
    """Return the rows (`MOST_MAPS`,) of a split set whose maps are stored, first what heads learn from."""
    rows = np.flatnonzero(data.split == "train")
    first = rows[faces_to_learn_from(len(rows), recipe.crop, seed)]
    order = np.argsort(data.split != "val", kind="stable")  # asked twice, the test part only once
    return np.concatenate([first, order[~np.isin(order, first)]])[:MOST_MAPS]


def faces_to_learn_from(count: int, recipe: CropRecipe, seed: int) -> np.ndarray:
    """Return the rows of a training part of `count` faces that heads learn from."""
    if count <= recipe.most_faces:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[: recipe.most_faces])


def train(
    network: str, data: FaceSet, recipe: ModelRecipe, seed: int, classes: Sequence[str], progress: bool = True
) -> TrainedModel:
    """Return a model trained on a set's `train` part and calibrated on its `val` part; crop networks want
    maps.

    The same seed gives the same weights.
    """
    val_part, parts = data.part("val"), {}
    for name in PARTS[network]:
        # The training part is made anew for each, which lets go of it as soon as it has chosen from it.
        if name == "landmarks":
            part = landmark_network.train(
                data.part("train"), val_part, recipe.landmarks, seed, classes, progress
            )
        else:
            part = train_crop(data.part("train"), val_part, recipe.crop, seed, classes, progress)
        parts[name] = part
    weights = recipe.weights if network == "hybrid" else {network: 1.0}
    model = TrainedModel(network, tuple(classes), parts, weights)
    if network != "hybrid":
        return replace(model, threshold=parts[network].threshold)
    temperature, threshold = calibrate(model.predict(val_part), val_part.class_index(classes))
    return replace(model, temperature=temperature, threshold=threshold)


def train_crop(
    train_part: FaceSet,
    val_part: FaceSet,
    recipe: CropRecipe,
    seed: int,
    classes: Sequence[str],
    progress: bool = True,
) -> TrainedCrop:
    """Return heads trained on one part and calibrated on another, both with crops and maps."""
    train_part = train_part.select(faces_to_learn_from(len(train_part), recipe, seed))
    learnt, asked = (landmark_network.targets(part, recipe, classes) for part in (train_part, val_part))
    settings = len(classes), recipe, seed, progress
    heads = crop_network.fit_heads((train_part.maps, *learnt), (val_part.maps, *asked), *settings)
    if recipe.fine_tuned_faces:
        seen = (train_part.crop, *learnt), (val_part.crop, *asked)
        heads = crop_augmentation.fine_tune(heads, *seen, *settings)
    temperature, threshold = calibrate(softmax(heads.logits(val_part)), val_part.class_index(classes))
    return TrainedCrop(heads, temperature, threshold, tuple(classes))


def calibrate(
    probabilities: np.ndarray, index: np.ndarray, weight: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the temperature that fits labels (n,) best, and the confidence from which enough predictions are
    right then; 0 if no confidence is."""
    temperature = landmark_network.fit_temperature(probabilities, index, weight)
    scaled = mix([(1.0, probabilities)], temperature)
    threshold, answered = answer_threshold(index, scaled, landmark_network.ANSWERED_RIGHT)
    return temperature, threshold if answered else 0.0
