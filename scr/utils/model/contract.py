"""What a model may say about itself: the check of a bundle's JSON and of the metadata in a `.tflite`.

The checks raise ValueError that says what is wrong; loaders add which file it is, and what to do.
"""

from ..data.checks import check_fields, is_list, is_map, is_number, is_text
from ..data.classes import FEWEST_CLASSES, MOST_CLASSES
from ..faces.crops import CROP_PX
from ..faces.features import ALL_POINTS, BLENDSHAPES

PARTS = {"landmarks": ("landmarks",), "crop": ("crop",), "hybrid": ("landmarks", "crop")}
"""The networks that there are, and the parts that each is made of."""
LARGEST = 1e6
"""No number of a recipe or a scaler comes near it; in float32, far larger ones end in infinities."""
MOST_INPUT_PX, MOST_EMBEDDING = 1024, 100_000

_is_coordinate = is_number(-LARGEST, LARGEST)
_is_share = is_number(0, 1)
_is_size = is_number(1, MOST_EMBEDDING, whole=True)


def check_metadata(metadata: dict) -> None:
    """Raise ValueError unless name, classes, threshold and feature recipe of a model are some."""
    check_fields(
        metadata,
        {
            "name": is_text,
            "classes": is_list(is_text),
            "features": is_map(lambda value: True),
            "threshold": _is_share,
        },
        {"sha256": lambda value: isinstance(value, str)},
    )
    classes = metadata["classes"]
    if not FEWEST_CLASSES <= len(set(classes)) == len(classes) <= MOST_CLASSES:
        raise ValueError(f"classes are {', '.join(classes)[:80]}")
    check_recipe(metadata["features"])


def check_recipe(features: dict) -> None:
    """Raise ValueError unless this is a recipe of `features.compute_features` or `crops.network_input`."""
    check_fields(features, {"kind": lambda kind: kind in ("raw", "aligned", "crop")})
    if features["kind"] == "crop":
        sizes = {
            "seen_px": is_number(1, CROP_PX, whole=True),
            "input_px": is_number(1, MOST_INPUT_PX, whole=True),
            "embedding": _is_size,
        }
        return check_fields(features, sizes)
    check_fields(
        features,
        {
            "points": is_number(1, ALL_POINTS, whole=True),
            "blendshapes": lambda value: isinstance(value, bool),
        },
        {"embedding": _is_size},
    )
    if features["kind"] == "aligned":
        check_fields(features, {"reference": is_list(is_list(_is_coordinate, 3), features["points"])})
    check_fields(features, {}, {"neutral": is_list(_is_coordinate, feature_count(features))})


def feature_count(features: dict) -> int:
    """Return how many numbers `features.compute_features` makes of a face by a recipe."""
    return features["points"] * 3 + BLENDSHAPES * features["blendshapes"]


def input_shape(features: dict) -> tuple[int, ...]:
    """Return the shape of what a network takes of one face by a recipe, without the batch."""
    if features["kind"] == "crop":
        return (features["input_px"], features["input_px"], 1)
    return (feature_count(features) + features.get("embedding", 0),)


def check_info(info: dict) -> None:
    """Raise ValueError unless a bundle's JSON describes a model."""
    check_metadata({name: value for name, value in info.items() if name != "sha256"})
    is_part = is_map(lambda part: isinstance(part, dict))
    check_fields(
        info,
        {"sha256": is_map(is_text)},
        {
            "network": lambda network: isinstance(network, str) and network in PARTS,
            "parts": is_part,
            "temperature": is_number(0.01, 100),
            "weights": is_map(_is_share),
            "scaler": lambda scaler: isinstance(scaler, dict),
        },
    )
    network, parts = info.get("network", "landmarks"), info.get("parts", {})
    if unknown := set(parts) - set(PARTS[network]):
        raise ValueError(f"parts are {', '.join(sorted(unknown))[:80]}")
    for part in parts.values():
        check_metadata({key: (info | part).get(key) for key in ("name", "classes", "features", "threshold")})
    if network == "hybrid" and "embedding" not in info["features"]:
        check_fields(info, {"temperature": is_number(0.01, 100)})
        check_fields(info.get("weights"), dict.fromkeys(PARTS[network], _is_share))
    if "scaler" in info:
        (count,) = input_shape(info["features"])
        check_fields(
            info["scaler"],
            {
                "mean": is_list(_is_coordinate, count),
                "scale": is_list(is_number(1 / LARGEST, LARGEST), count),
                "faces": is_number(1, 10**9, whole=True),
            },
        )
