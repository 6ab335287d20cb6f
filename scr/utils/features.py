"""The waist: landmarks -> feature vector. Extraction, recording, training and live use all cross it here.

Landmarks are (478, 3) float32, isotropic, in units of the image width: (x, y * height / width, z). The first 468 are
the face mesh, the last 10 the irises. A feature recipe is a plain dictionary, kept in the model's JSON:

    {"kind": "raw", "points": 468}                                  # coordinates as they are (the published recipe)
    {"kind": "aligned", "points": 468, "reference": [[x, y, z]...]}  # similarity-aligned to the reference
"""

import numpy as np

MESH_POINTS = 468
ALL_POINTS = 478
BLENDSHAPES = 52


def align(landmarks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return `landmarks` moved, scaled and rotated (no reflection) onto `reference`.

    landmarks (n, points, 3), reference (points, 3) -> (n, points, 3) in units of the reference. Least-squares
    similarity of Umeyama (1991), equations 40 to 42.
    """
    target_mean = reference.mean(axis=0)
    centred = landmarks - landmarks.mean(axis=1, keepdims=True)
    u, singular, vt = np.linalg.svd((reference - target_mean).T @ centred)
    sign = np.ones((len(landmarks), 3), landmarks.dtype)
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign[:, None, :]) @ vt
    scale = (singular * sign).sum(axis=1) / np.maximum(np.square(centred).sum(axis=(1, 2)), 1e-12)
    return scale[:, None, None] * (centred @ rotation.transpose(0, 2, 1)) + target_mean


def fit_reference(landmarks: np.ndarray, iterations: int = 5) -> np.ndarray:
    """Return the mean face (points, 3) of `landmarks` (n, points, 3), centred, of unit RMS radius.

    Generalised Procrustes analysis (Gower 1975). Fit it on the training part only.
    """
    reference = _normalise(landmarks.mean(axis=0))
    for _ in range(iterations):
        reference = _normalise(align(landmarks, reference).mean(axis=0))
    return reference


def _normalise(shape: np.ndarray) -> np.ndarray:
    centred = shape - shape.mean(axis=0)
    return (centred / np.sqrt(np.square(centred).sum(axis=1).mean())).astype(np.float32)


def fit_recipe(kind: str, landmarks: np.ndarray) -> dict:
    """Return the feature recipe of a kind (`raw` or `aligned`), its reference fitted on `landmarks` (n, >= 468, 3)."""
    if kind == "raw":
        return {"kind": "raw", "points": MESH_POINTS}
    if kind == "aligned":
        reference = fit_reference(landmarks[:, :MESH_POINTS])
        return {"kind": "aligned", "points": MESH_POINTS, "reference": reference.round(6).tolist()}
    raise ValueError(f"no feature recipe of the kind {kind!r}")


def compute_features(landmarks: np.ndarray, recipe: dict) -> np.ndarray:
    """Return the features (n, points * 3) float32 of landmarks (n, >= points, 3) by a recipe of `fit_recipe`."""
    if landmarks.ndim != 3 or landmarks.shape[1] < recipe["points"] or landmarks.shape[2] != 3:
        raise ValueError(f"landmarks of shape {landmarks.shape}, expected (n, {recipe['points']} or more, 3)")
    points = landmarks[:, :recipe["points"]].astype(np.float32)
    if recipe["kind"] == "aligned":
        points = align(points, np.asarray(recipe["reference"], np.float32))
    elif recipe["kind"] != "raw":
        raise ValueError(f"no feature recipe of the kind {recipe['kind']!r}")
    return points.reshape(len(points), -1).astype(np.float32)


def face_box(landmarks: np.ndarray) -> np.ndarray:
    """Return (x, y, width, height) of the mesh's bounding box for landmarks (..., 478, 3), in image widths."""
    mesh = landmarks[..., :MESH_POINTS, :2]
    low, high = mesh.min(axis=-2), mesh.max(axis=-2)
    return np.concatenate([low, high - low], axis=-1)
