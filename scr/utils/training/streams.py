"""What a network sees of a set that is too large for memory: computed for some faces at a time."""

from collections.abc import Iterable, Iterator

import numpy as np

from ..faces.features import compute_features, mirror_faces

CHUNK = 4096
"""Faces whose features are computed at a time: 24 MB, and some times that on the way."""
BLOCK = 98_304
"""Faces whose features are multiplied at a time, 0.6 GB: the last bits of a matrix product depend on how many
rows it has, and sets of usual size are to give the same weights as if they were in memory as a whole."""


class Features:
    """The features (n, d) of faces and, with `partner`, of their mirror images behind them, made when read.

    faces: any object with landmarks and blendshapes; partner: the `mirror_map`. There is nothing to keep:
    computing the features anew takes no longer than reading them from a disk.
    """

    def __init__(self, faces, recipe: dict, partner: np.ndarray | None = None):
        self._landmarks, self._blendshapes = faces.landmarks, faces.blendshapes
        self._recipe, self._partner = recipe, partner

    def __len__(self) -> int:
        return len(self._landmarks) * (1 if self._partner is None else 2)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of rows (k,), (k, d) float32."""
        rows, mirrored = np.divmod(rows, len(self._landmarks))[::-1]
        mirrored = mirrored.astype(bool)
        landmarks, blendshapes = self._landmarks[rows], self._blendshapes[rows]
        if mirrored.any():
            images = mirror_faces(landmarks[mirrored], blendshapes[mirrored], self._partner)
            landmarks = landmarks[:, : len(self._partner)]
            landmarks[mirrored], blendshapes[mirrored] = images
        return compute_features(landmarks, blendshapes, self._recipe)

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the features of all rows, some at a time."""
        for start in range(0, len(self), CHUNK):
            yield self.read(np.arange(start, min(start + CHUNK, len(self))))


def fit_scaler(features: Features):
    """Return a `StandardScaler` fitted on features, its constants rounded to float32, as deployed."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for chunk in features.chunks():
        scaler.partial_fit(chunk)
    scaler.mean_, scaler.scale_ = (
        values.astype(np.float32).astype(np.float64) for values in (scaler.mean_, scaler.scale_)
    )
    return scaler


def blocks(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield chunks (n, d), some after the other as one array of at most `BLOCK` rows, which is used again."""
    block, filled = None, 0
    for chunk in chunks:
        if block is None:
            block = np.empty((BLOCK, chunk.shape[1]), chunk.dtype)
        if filled + len(chunk) > BLOCK:
            yield block[:filled]
            filled = 0
        block[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    if block is not None:
        yield block[:filled]
