"""What may be in a file that comes in: shape, type and range, one check for each kind of file.

The checks raise ValueError that says what is wrong; loaders add which file it is, and what to do. None lets a
NaN or an infinity through: a network answers them with NaN, and nobody notices.
"""

import json

import numpy as np

from ..faces.features import ALL_POINTS, BLENDSHAPES

FARTHEST = 1e4
"""Landmarks are in image widths; on a picture of 1 x 16000 pixels y would reach this."""
BLENDSHAPE_RANGE = -0.01, 1.01
"""A hundredth on either side: MediaPipe's scores leave [0, 1] by some millionths."""


def check_array(name: str, values, shape: tuple, kinds: str, low: float = 0.0, high: float = np.inf) -> None:
    """Raise ValueError unless `values` is an array of this shape (None: any length), kind of type and range.

    kinds: letters of numpy's type kinds: `f` floating, `iu` whole numbers, `U` text. Bounds are included;
    text has none.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds:
        raise ValueError(f"{name} of type {getattr(values, 'dtype', type(values).__name__)}")
    if len(values.shape) != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, values.shape)
    ):
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} of shape {values.shape}, expected ({wanted})")
    if values.dtype.kind == "U" or not values.size:
        return
    smallest, largest = values.min(), values.max()
    if not (np.isfinite(smallest) and np.isfinite(largest)):  # NaN spreads to both
        raise ValueError(f"{name} that are no numbers (NaN or infinite)")
    if smallest < low or largest > high:
        raise ValueError(f"{name} from {smallest:g} to {largest:g}, expected {low:g} to {high:g}")


def check_faces(
    landmarks: np.ndarray, blendshapes: np.ndarray, points: tuple[int, ...] = (ALL_POINTS,)
) -> None:
    """Raise ValueError unless these are landmarks (n, one of `points`, 3) and blendshapes (n, 52)."""
    check_landmarks(landmarks, points)
    check_array("blendshapes", blendshapes, (len(landmarks), BLENDSHAPES), "f", *BLENDSHAPE_RANGE)


def check_landmarks(landmarks: np.ndarray, points: tuple[int, ...]) -> None:
    """Raise ValueError unless these are landmarks (n, one of `points`, 3)."""
    check_array("landmarks", landmarks, (None, None, 3), "f", -FARTHEST, FARTHEST)
    if landmarks.shape[1] not in points:
        raise ValueError(
            f"landmarks of shape {landmarks.shape}, expected (n, {' or '.join(map(str, points))}, 3)"
        )


def parse_json(data: bytes) -> dict:
    """Return the JSON object in some bytes; raises ValueError for all else, NaN and endless nesting."""

    def refuse(constant: str):
        raise ValueError(f"{constant} in it")

    try:
        content = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content
