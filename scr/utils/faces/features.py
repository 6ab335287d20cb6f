"""Landmarks -> feature vector: the one way that extraction, recording, training and live use share.

Landmarks are (478, 3) float32, isotropic, in units of the image width: (x, y * height / width, z). The
first 468 are the face mesh, the last 10 the irises. A feature recipe is a plain dictionary, kept in the
model's JSON:

    # coordinates as they are (the published recipe)
    {"kind": "raw", "points": 468, "blendshapes": false}
    # how the points differ from the reference face, after similarity alignment; then the 52 blendshapes
    {"kind": "aligned", "points": 468, "blendshapes": true, "reference": [[x, y, z]...]}
"""

import re

import numpy as np

MESH_POINTS = 468
ALL_POINTS = 478
BLENDSHAPE_NAMES = tuple(
    """
    _neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
    cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight
    eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft
    eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft
    mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft
    mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight mouthRollLower
    mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight mouthStretchLeft
    mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight
    """.split()
)
"""As MediaPipe names and orders them (its class `Blendshapes`): how far each muscle group moves, 0 to 1."""
BLENDSHAPES = len(BLENDSHAPE_NAMES)


def align(landmarks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return `landmarks` moved, scaled and rotated (no reflection) onto `reference`.

    landmarks (n, points, 3), reference (points, 3) -> (n, points, 3) in units of the reference.
    """
    rotation, scale = fit_similarity(landmarks, reference)
    centred = landmarks - _mean_point(landmarks)
    return scale[:, None, None] * (centred @ rotation.transpose(0, 2, 1)) + _mean_point(reference)


def fit_similarity(landmarks: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rotations (n, 3, 3) and scales (n,) that lay landmarks (n, points, 3) on `reference`.

    Least-squares similarity of Umeyama (1991), equations 40 to 42; points are columns.
    """
    centred = landmarks - _mean_point(landmarks)
    u, singular, vt = np.linalg.svd((reference - _mean_point(reference)).T @ centred)
    sign = np.ones((len(landmarks), 3), landmarks.dtype)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    spread = np.add.reduce(np.square(centred), axis=(1, 2))
    scale = np.add.reduce(singular * sign, axis=1) / np.maximum(spread, 1e-12)
    return (u * sign[:, None, :]) @ vt, scale


def _mean_point(points: np.ndarray) -> np.ndarray:
    # `mean` to the bit, in a third of its time: its checks cost more than the sum
    return np.add.reduce(points, axis=-2, keepdims=True) / points.shape[-2]


def fit_reference(landmarks: np.ndarray, iterations: int = 5, most: int = 4000) -> np.ndarray:
    """Return the mean face (468, 3) of `landmarks` (n, 468 or more, 3), centred, of unit RMS radius.

    Generalised Procrustes analysis (Gower 1975) of at most `most` faces, evenly picked. Fit it on the
    training part only.
    """
    landmarks = landmarks[:: -(-len(landmarks) // most)][:, :MESH_POINTS]
    reference = _normalise(landmarks.mean(axis=0))
    for _ in range(iterations):
        reference = _normalise(align(landmarks, reference).mean(axis=0))
    return reference


def _normalise(shape: np.ndarray) -> np.ndarray:
    centred = shape - shape.mean(axis=0)
    return (centred / np.sqrt(np.square(centred).sum(axis=1).mean())).astype(np.float32)


def fit_recipe(kind: str, landmarks: np.ndarray, blendshapes: bool = False) -> dict:
    """Return the recipe of a kind (`raw`, `aligned`), its reference fitted on landmarks (n, >= 468, 3)."""
    recipe = {"kind": kind, "points": MESH_POINTS, "blendshapes": blendshapes}
    if kind == "aligned":
        recipe["reference"] = fit_reference(landmarks).round(6).tolist()
    elif kind != "raw":
        raise ValueError(f"no feature recipe of the kind {kind!r}")
    return recipe


def compute_features(landmarks: np.ndarray, blendshapes: np.ndarray | None, recipe: dict) -> np.ndarray:
    """Return the features (n, d) float32 of faces by a recipe of `fit_recipe`.

    landmarks (n, points or more, 3); blendshapes (n, 52), needed only if the recipe says so. d is points
    * 3, and 52 more with blendshapes. Raises ValueError for other shapes.
    """
    if landmarks.ndim != 3 or landmarks.shape[1] < recipe["points"] or landmarks.shape[2] != 3:
        raise ValueError(f"landmarks of shape {landmarks.shape}, expected (n, {recipe['points']} or more, 3)")
    points = landmarks[:, : recipe["points"]].astype(np.float32)
    if recipe["kind"] == "aligned":
        reference = np.asarray(recipe["reference"], np.float32)
        points = align(points, reference) - reference
    elif recipe["kind"] != "raw":
        raise ValueError(f"no feature recipe of the kind {recipe['kind']!r}")
    flat = points.reshape(len(points), -1)
    if recipe["blendshapes"]:
        if blendshapes is None or blendshapes.shape != (len(landmarks), BLENDSHAPES):
            raise ValueError(f"expected blendshapes of shape ({len(landmarks)}, {BLENDSHAPES})")
        flat = np.concatenate([flat, blendshapes], axis=1)
    return flat.astype(np.float32, copy=False)


_OTHER_SIDE = {"Left": "Right", "Right": "Left"}
MIRRORED_BLENDSHAPES = np.array(
    [
        BLENDSHAPE_NAMES.index(re.sub("(Left|Right)$", lambda side: _OTHER_SIDE[side[0]], name))
        for name in BLENDSHAPE_NAMES
    ]
)
"""For each blendshape its place on the mirrored face (`browDownLeft`: `browDownRight`)."""


def mirror_map(reference: np.ndarray) -> np.ndarray:
    """Return for each point of a reference (points, 3) the one in its place on the mirrored face.

    The cheapest matching of the reference with its mirror image; a mean face is symmetric enough to make
    it exact.
    """
    from scipy.optimize import linear_sum_assignment

    mirrored = reference * np.array([-1, 1, 1])
    distance = np.square(reference[:, None] - mirrored[None]).sum(axis=2)
    partner = linear_sum_assignment(distance)[1]
    if (partner[partner] != np.arange(len(reference))).any():
        raise ValueError("the reference face is not symmetric enough to tell left from right")
    return partner


def mirror_faces(
    landmarks: np.ndarray, blendshapes: np.ndarray, partner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mirror images of faces (n, points, 3) and (n, 52); partner: `mirror_map`."""
    mirrored = landmarks[:, : len(partner)][:, partner] * np.array([-1, 1, 1], landmarks.dtype)
    return mirrored, blendshapes[:, MIRRORED_BLENDSHAPES]


def face_box(landmarks: np.ndarray) -> np.ndarray:
    """Return the mesh's bounding box (x, y, width, height) for landmarks (..., 478, 3), in image widths."""
    flat = landmarks[..., :MESH_POINTS, :2]
    mesh = np.ascontiguousarray(flat.swapaxes(-1, -2))  # all x, all y: twice as fast to reduce
    low, high = np.minimum.reduce(mesh, axis=-1), np.maximum.reduce(mesh, axis=-1)
    return np.concatenate([low, high - low], axis=-1)
