"""Pictures -> emotions, for programs of others: what main.py answers, in three lines of Python."""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..config import MODELS, UserError
from ..video.frames import Frame
from ..video.sources import read_picture_file
from .pipeline import FaceReader


@dataclass(frozen=True)
class FaceEmotion:
    """What is read from a face: its likeliest emotion and the probability of it and of each class.

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
    if frame.problem:
        raise UserError(frame.problem)
    reader = _open_reader(str(model))
    return [
        FaceEmotion(
            reading.emotion,
            float(reading.confidence),
            dict(zip(reader.classifier.classes, map(float, reading.probabilities))),
            reading.box,
            reading.landmarks,
        )
        for reading in reader.read_still(frame)
    ]


@cache
def _open_reader(model: str) -> FaceReader:
    return FaceReader(model, still=True, max_faces=None, smoothing_ms=0)
