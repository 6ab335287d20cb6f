"""What a model's JSON says: that of a bundle, and the metadata packed in a `.tflite`. Owns `pydantic`.

Programs work with the plain dictionaries; the classes here say what may be in them. No NaN, no infinity and
no number out of range passes: a network would turn them into NaN, and nobody would notice. What is not
named here is free.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from ..config import UserError
from ..data.classes import FEWEST_CLASSES, MOST_CLASSES, check_classes, list_names
from ..faces.crops import CROP_PX
from ..faces.features import ALL_POINTS, BLENDSHAPES

PARTS = {"landmarks": ("landmarks",), "crop": ("crop",), "hybrid": ("landmarks", "crop")}
"""The networks that there are, and the parts that each is made of."""
LARGEST = 1e6
"""No number of a recipe or a scaler comes near it; in float32, far larger ones end in infinities."""

Coordinate = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]
Text = Annotated[str, Field(min_length=1, max_length=999)]
Classes = Annotated[list[Text], Field(min_length=FEWEST_CLASSES, max_length=MOST_CLASSES)]
Size = Annotated[int, Field(ge=1, le=100_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")


class PointRecipe(_Strict):
    """How the input of a landmark network is made, by `features.compute_features`.

    embedding: size of the crop network's last hidden layer, which follows the features in personal models.
    """

    kind: Literal["raw", "aligned"]
    points: Annotated[int, Field(ge=1, le=ALL_POINTS)]
    blendshapes: bool
    reference: list[Annotated[list[Coordinate], Field(min_length=3, max_length=3)]] | None = None
    embedding: Size | None = None

    @model_validator(mode="after")
    def _has_reference(self):
        if self.kind == "aligned" and len(self.reference or ()) != self.points:
            raise ValueError(f"a reference of {len(self.reference or ())} points, expected {self.points}")
        return self


class CropRecipe(_Strict):
    """How the input of a crop network is made, by `crops.network_input`, and the size of its embedding."""

    kind: Literal["crop"]
    seen_px: Annotated[int, Field(ge=1, le=CROP_PX)]
    input_px: Annotated[int, Field(ge=1, le=1024)]
    embedding: Size


class Calibration(_Strict, extra="ignore"):
    """What probabilities are divided by, as logarithms, and the confidence from which a class is named."""

    temperature: Temperature
    threshold: Share


class Vocabulary(Calibration):
    """Some of a network's classes, in its order, to tell apart, with the calibration that holds for these."""

    classes: Classes


class Metadata(_Strict):
    """What the `.tflite` of a network carries; sha256: of the network before the metadata.

    threshold: of all classes; vocabularies: narrower ones, the first of which is the default.
    """

    name: Text
    classes: Classes
    features: Annotated[PointRecipe | CropRecipe, Field(discriminator="kind")]
    threshold: Share
    vocabularies: list[Vocabulary] = []
    sha256: str | None = None

    @model_validator(mode="after")
    def _classes_fit(self):
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class twice")
        for one in self.vocabularies:
            if one.classes == self.classes or one.classes != _in_order(self.classes, one.classes):
                raise ValueError("a vocabulary that is no narrower choice of the classes, in their order")
        return self


class Scaler(_Strict):
    """Mean and scale of a `StandardScaler`, and the number of faces that it was fitted on."""

    mean: list[Coordinate]
    scale: list[Annotated[float, Field(ge=1 / LARGEST, le=LARGEST)]]
    faces: Annotated[int, Field(ge=1, le=10**9)]


class Bundle(Metadata):
    """A bundle's JSON. sha256: of each file, by its name; parts: what differs in the metadata of a part."""

    sha256: dict[str, str]
    network: Literal[*PARTS] = "landmarks"
    parts: dict[str, dict] = {}
    temperature: Temperature | None = None
    weights: dict[str, Share] = {}
    scaler: Scaler | None = None

    @model_validator(mode="after")
    def _is_whole(self):
        if unknown := set(self.parts) - set(PARTS[self.network]):
            raise ValueError(f"unknown parts: {', '.join(sorted(unknown))[:80]}")
        about = self.model_dump(include=Metadata.model_fields.keys() - {"sha256"}, exclude_none=True)
        for part in self.parts.values():
            Metadata.model_validate(about | part)
            if self.vocabularies and "vocabularies" not in part:
                raise ValueError(
                    "vocabularies, but none of a part: those of a mixture have another temperature"
                )
        # The last layer of a personal hybrid has the weights in it.
        if self.network == "hybrid" and self.features.embedding is None:
            if self.temperature is None or set(self.weights) != set(PARTS["hybrid"]):
                raise ValueError("a hybrid without temperature or weights")
        if self.scaler and {len(self.scaler.mean), len(self.scaler.scale)} != set(
            input_shape(about["features"])
        ):
            raise ValueError("mean and scale of other features")
        return self


class _LeftOut(_Strict, extra="ignore"):
    """What `evaluate.py --leave-one-source-out` writes: the calibration of all classes, that of narrower
    vocabularies, and the weights of a hybrid's parts."""

    calibration: Calibration
    weights: dict[str, Share] | None = None
    vocabularies: list[Vocabulary] = []


def check(content: object, schema: type[BaseModel]) -> None:
    """Raise ValueError, which names the first field that is wrong, unless `content` is as the schema says."""
    try:
        schema.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from error


def parse(data: bytes, schema: type[BaseModel]) -> dict:
    """Return the JSON object in some bytes; raises ValueError as `check` does, and for what is no JSON."""
    content = from_json(data, allow_inf_nan=False)
    check(content, schema)
    return content


def read_calibration(path: Path) -> dict:
    """Return `temperature`, `threshold`, `vocabularies` and, of a hybrid, `weights` as a bundle has them.

    The file is what `evaluate.py --leave-one-source-out` wrote. Raises ValueError if it has no calibration,
    and OSError.
    """
    found = _LeftOut.model_validate(parse(path.read_bytes(), _LeftOut)).model_dump(exclude_none=True)
    return found.pop("calibration") | found


def vocabularies(info: dict) -> list[dict]:
    """Return what a model can be read out by, each as a `Vocabulary`: the default first, all classes last.

    info: the JSON of a bundle, or the metadata of a network.
    """
    of_all = {"temperature": info.get("temperature", 1.0), "threshold": info["threshold"]}
    return [*info.get("vocabularies", ()), {"classes": info["classes"]} | of_all]


def smallest_vocabulary(info: dict, labels: Sequence[str]) -> dict:
    """Return the smallest vocabulary of a model that holds all labels that the model reads at all."""
    known = set(labels) & set(info["classes"])
    holding = (one for one in vocabularies(info) if known <= set(one["classes"]))
    return min(holding, key=lambda one: len(one["classes"]))


def choose_vocabulary(info: dict, classes: Sequence[str] | None = None) -> dict:
    """Return the vocabulary to read a model out by.

    classes: None: the default; "all"; or two or more names, which have the calibration of the smallest
    vocabulary that holds them. Raises UserError for a class that the model does not read.
    """
    names = [classes] if isinstance(classes, str) else list(classes or ())
    if not names or names == ["all"]:
        return vocabularies(info)[-1 if names else 0]
    chosen = check_classes(names)
    if unknown := [name for name in chosen if name not in info["classes"]]:
        raise UserError(
            f"the model does not read {list_names(unknown)}; it reads: {list_names(info['classes'])}"
        )
    return smallest_vocabulary(info, chosen) | {"classes": _in_order(info["classes"], chosen)}


def _in_order(classes: Sequence[str], chosen: Sequence[str]) -> list[str]:
    return [name for name in classes if name in chosen]


def input_shape(features: dict) -> tuple[int, ...]:
    """Return the shape of a network's input by its recipe, without the batch."""
    if features["kind"] == "crop":
        return (features["input_px"], features["input_px"], 1)
    count = features["points"] * 3 + BLENDSHAPES * features["blendshapes"]
    return (count + features.get("embedding", 0),)
