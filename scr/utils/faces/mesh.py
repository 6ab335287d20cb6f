"""A region of a picture -> landmarks and blendshapes, by MediaPipe's two networks on LiteRT.

MediaPipe's own program finds regions with a detector that misses small and turned faces, and reads a face
once, in the region that the detector gave. Here the region comes from YuNet, and a face is read again in the
region that its own points give, as MediaPipe does from one frame of a video to the next, so stills are read
the way videos are.
"""

import io
import zipfile
from dataclasses import dataclass

import numpy as np

from ..config import MODELS, native_log_silenced
from ..files import read_verified
from .detection import NETWORK_ADVICE, Detection, RotatedBox
from .features import ALL_POINTS, MESH_POINTS

TASK_FILE = MODELS / "face_landmarker.task"
TASK_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
"""MediaPipe's face landmarker: a zip archive of its networks."""
INPUT_PX = 256
"""Side of the landmark network's input."""
REGION_SCALE = 1.5
"""Side of a face's region, in longer sides of its mesh (MediaPipe, face_landmarks_detector_graph.cc)."""
EYE_CORNERS = 33, 263
"""Outer corners of the eyes: the line through them tells how the face is turned (the same source)."""
BLENDSHAPE_POINTS = np.array(
    """
    0 1 4 5 6 7 8 10 13 14 17 21 33 37 39 40 46 52 53 54 55 58 61 63 65 66 67 70 78 80 81 82 84 87 88 91
    93 95 103 105 107 109 127 132 133 136 144 145 146 148 149 150 152 153 154 155 157 158 159 160 161
    162 163 168 172 173 176 178 181 185 191 195 197 234 246 249 251 263 267 269 270 276 282 283 284 285
    288 291 293 295 296 297 300 308 310 311 312 314 317 318 321 323 324 332 334 336 338 356 361 362 365
    373 374 375 377 378 379 380 381 382 384 385 386 387 388 389 390 397 398 400 402 405 409 415 454 466
    468 469 470 471 472 473 474 475 476 477
    """.split(),
    int,
)
"""The 146 points that the blendshape network wants, in its order (MediaPipe, face_blendshapes_graph.cc)."""
READ_REGION_PX = 100
"""Reference size of faces, as pixels along the region's side: a face of 58 pixels. Wider ones are resampled.

On sharper faces the points lie elsewhere, and half of the training faces are no sharper (FER2013: 48 px).
Measured with the model trained before, two readings, at 200, 110, 100 and 90: JAFFE .620, .788, .788, .769;
London .768, .793, .768, .817."""
PRESENCE = 0.3
"""The landmark network's own estimate that it sees a face; below it, there is none."""
READINGS = 2, 3
"""How often a still's face is read, at least and at most, each time in the region that its points gave."""
FIRST_REGIONS = 1.45, 1.2
"""Sides of the first region, in sizes of the detection; the second is tried where the first shows no face."""
FIRST_DOWN = 0.03
"""How far a face's mesh lies below its detection's middle, in the latter's sizes (FER+, AffectNet)."""
MOST_DRIFT = 0.5, 1.7, np.radians(60)
"""How far points may lie from their detection: in its sizes, as a factor of size, as an angle."""


@dataclass(frozen=True)
class Mesh:
    """What the networks say of a region: points (478, 3) in pixels, blendshapes (52,), presence in [0, 1].

    `region` is the one that the points give.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    presence: float
    region: RotatedBox


class FaceMesh:
    """The landmark network and the blendshape network."""

    def __init__(self):
        task = io.BytesIO(read_verified(TASK_FILE, TASK_SHA256, NETWORK_ADVICE))
        with zipfile.ZipFile(task) as files:
            self._landmarks = _open(files.read("face_landmarks_detector.tflite"))
            self._blendshapes = _open(files.read("face_blendshapes.tflite"))

    def read(self, frame_bgr: np.ndarray, region: RotatedBox) -> Mesh:
        """Return the reading of a region of a frame (height, width, 3) uint8."""
        crop = region.cut(frame_bgr, INPUT_PX, READ_REGION_PX)[..., ::-1]  # RGB
        landmarks, presence = _run(self._landmarks, crop[None] * np.float32(1 / 255), outputs=2)
        points = landmarks.reshape(ALL_POINTS, 3)
        # The blendshape network wants the points of the upright crop; place and size are nothing to it.
        (blendshapes,) = _run(self._blendshapes, points[None, BLENDSHAPE_POINTS, :2], outputs=1)
        points, presence = _to_picture(points, region), 1 / (1 + np.exp(-presence.item()))
        return Mesh(points, blendshapes.reshape(-1), float(presence), _region_of(points))

    def find(self, frame_bgr: np.ndarray, detection: Detection) -> Mesh | None:
        """Return the reading of a detected face, or None if its points show no face there."""
        down = FIRST_DOWN * detection.size
        x, y = detection.x - down * np.sin(detection.angle), detection.y + down * np.cos(detection.angle)
        least, most = READINGS
        for side in FIRST_REGIONS:
            region = RotatedBox(x, y, side * detection.size, detection.angle)
            for count in range(1, most + 1):
                reading = self.read(frame_bgr, region)
                if _drifted(reading.region, detection):
                    break
                if count >= least and reading.presence >= PRESENCE:
                    return reading
                region = reading.region
        return None


def _open(network: bytes):
    from ai_edge_litert.interpreter import Interpreter

    with native_log_silenced():
        interpreter = Interpreter(model_content=network, num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def _run(interpreter, values: np.ndarray, outputs: int) -> list[np.ndarray]:
    (place,) = interpreter.get_input_details()
    interpreter.set_tensor(place["index"], np.ascontiguousarray(values, np.float32))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()[:outputs]]


def _to_picture(points: np.ndarray, region: RotatedBox) -> np.ndarray:
    """Return points (n, 3) of a region's crop in pixels of the picture; z has the scale of x."""
    back = np.linalg.inv(region.to_crop(INPUT_PX))
    flat, depth = points[:, :2] @ back[:2, :2].T + back[:2, 2], points[:, 2] * region.side / INPUT_PX
    return np.column_stack([flat, depth]).astype(np.float32)


def _region_of(points: np.ndarray) -> RotatedBox:
    """Return the region of a face with these points: its mesh upright in the middle."""
    across = points[EYE_CORNERS[1], :2] - points[EYE_CORNERS[0], :2]
    angle = float(np.arctan2(across[1], across[0]))
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    upright = points[:MESH_POINTS, :2] @ turn
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = turn @ ((low + high) / 2)
    return RotatedBox(float(x), float(y), float(REGION_SCALE * (high - low).max()), angle)


def _drifted(region: RotatedBox, detection: Detection) -> bool:
    """Tell whether the points of a detected face lie on something else, or were read the wrong way up."""
    off, ratio, turn = MOST_DRIFT
    return (
        np.hypot(region.x - detection.x, region.y - detection.y) > off * detection.size
        or not 1 / ratio < region.side / (FIRST_REGIONS[0] * detection.size) < ratio
        or abs((region.angle - detection.angle + np.pi) % (2 * np.pi) - np.pi) > turn
    )


def overlap(one: RotatedBox, other: RotatedBox) -> bool:
    """Tell whether two regions show the same face: the middle of one lies well within the other's mesh."""
    return np.hypot(one.x - other.x, one.y - other.y) < 0.25 * max(one.side, other.side)
