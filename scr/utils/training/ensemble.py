"""A model of one or two networks: landmarks, crop, or the hybrid, which averages their log-probabilities.

`train_model.py` and `evaluate.py --leave-one-source-out` both train by `train`, so what is judged is what
is shipped.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from ..config import DATA, UserError
from ..data.arrays import Rows
from ..data.face_set import FaceSet
from ..files import scratch_folder
from ..model.bundle import NAME, PARTS
from ..model.classifier import mix
from . import crop_network, landmark_network
from .networks import calibrate


@dataclass(frozen=True)
class ModelRecipe:
    """How a model of any network is trained: the recipe of each part, and how the parts are mixed."""

    landmarks: landmark_network.Recipe
    crop: crop_network.Recipe = field(default_factory=crop_network.Recipe)
    weights: dict[str, float] = field(default_factory=lambda: {"landmarks": 0.3, "crop": 0.7})
    """of the parts' log-probabilities in the hybrid"""


RECIPES = {name: ModelRecipe(recipe) for name, recipe in landmark_network.RECIPES.items()}
RECIPES["fine-tuned"] = ModelRecipe(
    landmark_network.RECIPES["default"],
    crop_network.Recipe(fine_tuned_faces=100_000),
    {"landmarks": 0.2, "crop": 0.8},
)


@dataclass(frozen=True)
class TrainedModel:
    """The trained parts of a model and how they are mixed."""

    network: str
    classes: tuple[str, ...]
    parts: dict[str, landmark_network.Trained | crop_network.Trained]
    weights: dict[str, float]
    temperature: float = 1.0
    threshold: float = 0.0

    def predict(self, data: FaceSet) -> np.ndarray:
        """Return the probabilities (n, classes) of a set; a crop network wants crops and maps."""
        return mix(
            [(self.weights[name], part.predict(data)) for name, part in self.parts.items()], self.temperature
        )


def require_crops(data: FaceSet, network: str) -> None:
    """Raise UserError if a network reads crops and a set has none."""
    if "crop" in PARTS[network] and data.crop is None:
        raise UserError(
            f"the network '{network}' reads crops of the faces and these sets hold none; make them again: "
            "python scr/extract_landmarks.py --help, or add --network landmarks"
        )


@contextlib.contextmanager
def maps_of(data: FaceSet, network: str) -> Iterator[FaceSet]:
    """Yield the set with the backbone's feature maps beside its crops, in a file that is deleted at the end.

    A set is given back as it is for a network that does not read crops. Each face's maps are computed when
    they are first read, so once, however often heads are trained on them. Raises UserError as
    `require_crops` does.
    """
    require_crops(data, network)
    if "crop" not in PARTS[network] or data.maps is not None:
        yield data
        return
    with scratch_folder(DATA) as folder:
        yield replace(data, maps=Rows([crop_network.FeatureMaps(data.crop, folder / "maps")]))


def train(
    network: str, data: FaceSet, recipe: ModelRecipe, seed: int, classes: Sequence[str], progress: bool = True
) -> TrainedModel:
    """Return a model trained on a set's `train` part and calibrated on its `val` part; crop networks want
    maps.

    The same seed gives the same weights.
    """
    val_part, parts = data.part("val"), {}
    for name in PARTS[network]:
        train_part = {"landmarks": landmark_network.train, "crop": crop_network.train}[name]
        settings = getattr(recipe, name), seed, classes, progress
        # The training part is made anew for each, which lets go of it as soon as it has chosen from it.
        parts[name] = train_part(data.part("train"), val_part, *settings)
    weights = recipe.weights if network == "hybrid" else {network: 1.0}
    model = TrainedModel(network, tuple(classes), parts, weights)
    if network != "hybrid":
        return replace(model, threshold=parts[network].threshold)
    temperature, threshold = calibrate(model.predict(val_part), val_part.class_index(classes))
    return replace(model, temperature=temperature, threshold=threshold)


def calibrate_parts(model: TrainedModel, val: FaceSet, vocabularies: Sequence[dict]) -> dict[str, list[dict]]:
    """Return the vocabularies of each part, which can be used alone, calibrated on the validation part."""
    found = {name: [] for name in model.parts}
    for classes in (one["classes"] for one in vocabularies):
        some, columns = val.of_classes(classes), [model.classes.index(name) for name in classes]
        for name, part in model.parts.items():
            probabilities = mix([(1.0, part.predict(some)[:, columns])])
            temperature, threshold = calibrate(probabilities, some.class_index(classes))
            calibration = {"temperature": temperature, "threshold": round(threshold, 3)}
            found[name].append({"classes": classes} | calibration)
    return found


def describe(
    model: TrainedModel, recipe: ModelRecipe, seed: int, vocabularies: dict[str, list[dict]]
) -> dict:
    """Return what a bundle says about a model and its training; vocabularies: of each part."""
    training = {
        name: asdict(getattr(recipe, name))
        | {"epochs_run": len(part.history["loss"]), "temperature": part.temperature, "dropped": part.dropped}
        for name, part in model.parts.items()
    }
    parts = {
        name: {
            "threshold": round(part.threshold, 3),
            "vocabularies": vocabularies[name],
            "features": part.features,
        }
        for name, part in model.parts.items()
    }
    return {
        "name": NAME,
        "network": model.network,
        "classes": list(model.classes),
        "features": parts[next(iter(parts))].pop("features"),
        "threshold": round(model.threshold, 3),
        "temperature": model.temperature,
        "weights": model.weights,
        "parts": parts,
        "training": {"seed": seed} | training,
        "sha256": {},
    }
