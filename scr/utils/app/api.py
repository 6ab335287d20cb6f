"""Pictures -> emotions, for programs of others: what main.py reads, in three lines of Python."""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..config import MODELS
from ..video.frames import Frame
from ..video.sources import read_picture_file
from .pipeline import FaceReader


@dataclass(frozen=True)
class FaceEmotion:
    """What is read from a face: its likeliest emotion and the probability of it and of each class.

    emotion is `uncertain` if no class reaches the model's threshold; confidence is the likeliest one's.
    box (x, y, width, height) in pixels of the upright picture; landmarks (478, 3) float32 in its widths.
    """

    emotion: str
    confidence: float
    probabilities: dict[str, float]
    box: tuple[int, int, int, int]
    landmarks: np.ndarray


def read_faces(picture: Path | str | np.ndarray, model: Path | str = MODELS) -> list[FaceEmotion]:
    """Return the faces on a picture, the largest first, as main.py reads them.

    picture: a file, or pixels (height, width, 3) uint8 in the order of OpenCV, blue first. model: as
    `--model` of main.py. The first call for a model loads it. Raises UserError if the picture or the model
    can't be read, ValueError for pixels of another shape or type. Not for several threads at once.
    """
    if isinstance(picture, np.ndarray):
        frame = Frame(np.ascontiguousarray(picture), 0, 0, "pixels", time.monotonic(), still=True)
    else:
        frame = read_picture_file(str(picture), Path(picture))
    reader = _open_reader(str(model))
    return [
        FaceEmotion(
            result.emotion,
            result.confidence,
            dict(zip(reader.classifier.classes, map(float, result.probabilities))),
            result.box,
            result.landmarks,
        )
        for result in reader.read(frame, reader.find(frame))
    ]


@cache
def _open_reader(model: str) -> FaceReader:
    return FaceReader(model)
