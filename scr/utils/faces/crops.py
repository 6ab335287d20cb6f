"""A picture and a face's landmarks -> the face's crop: small, grey, upright, of one size and place.

Sets and live use make their crops by `crop_face`, so that training and live use see the same pixels.
"""

from functools import cache
from pathlib import Path

import numpy as np

from .features import MESH_POINTS
from .images import import_cv2

CROP_PX = 120
"""Side of a crop. A network may look at its middle only; the margin is for training on moved crops."""
MESH_PX = 90
"""Height of the reference face on a crop. Faces of any size are brought to it, so that the sharpness of a
source's pictures says little about its labels."""
USUAL_MEAN, USUAL_DEVIATION, LEAST_DEVIATION, GREY_MEAN = 118.0, 55.0, 4.0, 117.0
"""Grey levels of `network_input`: mean and standard deviation that every crop is brought to, what is added to
a deviation so that a flat crop is not blown up to noise, and what is taken off as the backbone's mean."""
REFERENCE_FILE = Path(__file__).with_name("reference_face.csv")
"""x, y of the mean face's mesh points (the shipped landmark model's), its box centred, 1 high."""
MOUTH, MIDDLE = np.s_[70:95, 40:80], np.s_[16:104, 16:104]
"""Rows and columns of a crop: the mouth, and the face."""
COVERED_CONTRAST = 0.22
"""`mouth_contrast` under which a hand or mask is taken to cover the mouth. Of 174 faces of London and KDEF,
labelled wrongly with a drawn mask 67 -> 0, with a hand 37 -> 0; rightly as they are 159 -> 158. RAF-DB: 1% of
faces, of Asian, black and white people alike. A patterned mask is not told (tests/measure/covered.py)."""


@cache
def reference_points() -> np.ndarray:
    """Return where the mesh points (468, 2) of an upright mean face lie on a crop, x and y in pixels."""
    return np.loadtxt(REFERENCE_FILE, delimiter=",") * MESH_PX + CROP_PX / 2


def crop_face(picture_bgr: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Return the crop (CROP_PX, CROP_PX) uint8 of a face on a picture (height, width, 3) uint8.

    landmarks (468 or more, 3) in widths of the picture. Their x and y are laid on a mean face by the
    least-squares similarity without reflection (Umeyama 1991). What lies outside the picture repeats its
    border.
    """
    cv2 = import_cv2()
    points = landmarks[:MESH_POINTS, :2].astype(np.float64) * picture_bgr.shape[1]
    matrix = _similarity(points, reference_points())
    part, left, top = _covered_part(picture_bgr, matrix)
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    grey = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_BGR2GRAY)
    scale = np.hypot(*matrix[0, :2])
    while scale <= 0.5 and min(grey.shape) > 1:  # bilinear sampling takes no more than every second pixel in
        height, width = grey.shape[0] // 2, grey.shape[1] // 2
        grey = cv2.resize(grey[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= 2
        scale *= 2
    # Landmarks count from a pixel's corner, cv2 from its centre.
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return cv2.warpAffine(
        grey, matrix, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def crop_faces(picture_bgr: np.ndarray, landmarks: list[np.ndarray]) -> np.ndarray:
    """Return the crops (n, CROP_PX, CROP_PX) uint8 of several faces on a picture, by `crop_face`."""
    crops = [crop_face(picture_bgr, points) for points in landmarks]
    return np.array(crops, np.uint8).reshape(-1, CROP_PX, CROP_PX)


def mouth_contrast(crop: np.ndarray) -> float:
    """Return how much the mouth of a crop (CROP_PX, CROP_PX) uint8 stands out, about 1 for a usual face.

    The product of two shares of what the whole face shows: the deviation of its grey levels, and their change
    from row to row, since lips are lines across.
    """
    grey = crop.astype(np.float32)
    mouth, face = grey[MOUTH], grey[MIDDLE]
    rows, rows_of_face = (np.abs(np.diff(part, axis=0)).mean() for part in (mouth, face))
    return float((mouth.std() + 1) / (face.std() + 4) * (rows + 0.3) / (rows_of_face + 0.3))


def _similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the matrix (2, 3) that takes points (n, 2) nearest to target (n, 2) by move, turn and scale."""
    middle, target_middle = points.mean(axis=0), target.mean(axis=0)
    x, y = (points - middle).T
    to_x, to_y = (target - target_middle).T
    norm = max((x * x + y * y).sum(), 1e-12)
    cosine, sine = (x * to_x + y * to_y).sum() / norm, (x * to_y - y * to_x).sum() / norm
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, target_middle - turn @ middle])


def _covered_part(picture: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return the part of a picture that a crop covers, at least one pixel, and its left and top."""
    height, width = picture.shape[:2]
    corners = np.array([[0, 0], [CROP_PX, 0], [0, CROP_PX], [CROP_PX, CROP_PX]])
    region = (corners - matrix[:, 2]) @ np.linalg.pinv(matrix[:, :2]).T
    low, high = np.floor(region.min(axis=0)) - 2, np.ceil(region.max(axis=0)) + 3
    left, top = int(np.clip(low[0], 0, width - 1)), int(np.clip(low[1], 0, height - 1))
    right, bottom = int(np.clip(high[0], left + 1, width)), int(np.clip(high[1], top + 1, height))
    return picture[top:bottom, left:right], left, top


def network_input(crops: np.ndarray, recipe: dict) -> np.ndarray:
    """Return what a crop network sees, (n, side, side, 1) float32, of crops (n, CROP_PX, CROP_PX) uint8.

    recipe: `seen_px`, the middle of the crop that it sees, enlarged to `input_px`, the side. Brightness
    and contrast are set to those of a usual photograph, so that the light of a source says little; the values
    lie around zero.
    """
    cv2 = import_cv2()
    seen, side = recipe["seen_px"], recipe["input_px"]
    margin = (CROP_PX - seen) // 2
    values = np.empty((len(crops), side, side, 1), np.float32)
    for one, crop in zip(values, crops):
        middle = crop[margin : margin + seen, margin : margin + seen]
        enlarged = cv2.resize(middle, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        one[..., 0] = normalise(enlarged)
    return values


def normalise(grey: np.ndarray) -> np.ndarray:
    """Return grey levels (side, side) float32 as in a usual photograph, around zero."""
    contrast = USUAL_DEVIATION / (grey.std() + LEAST_DEVIATION)
    return np.clip((grey - grey.mean()) * contrast + USUAL_MEAN, 0, 255) - GREY_MEAN
