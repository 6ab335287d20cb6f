"""Where faces are on a picture, and how each is turned: OpenCV's YuNet (`cv2.FaceDetectorYN`).

Source: Wu, Peng, Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector".

MediaPipe's own detector is made for selfies: it misses small faces among many, and tilted ones. YuNet finds
turned faces too, but always draws its five points as if the face were upright, so they can't tell how it is
turned. Its score can: the same face scores highest upright (measured on 150 pictures turned in steps of 45
degrees: right for 99% of faces over 100 px).
"""

from dataclasses import dataclass

import numpy as np

from ..config import MODELS
from ..files import read_verified
from .images import import_cv2, shrink

DETECTOR_FILE = MODELS / "face_detection_yunet_2023mar.onnx"
DETECTOR_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
NETWORK_ADVICE = "the repository has it: git checkout models"

SCORE = 0.5
"""Least score of a face; it may be low, since regions whose points show no face are left out later."""
LEAST_SIDE_PX, MOST_SIDE_PX = 160, 640
"""Longer side of the copy that is searched. Small pictures are enlarged: of 48 px faces 79% are found as they
are, 97% at 160."""
LARGE_SIDE_PX = 1920
"""Longer side of a second copy, where the first shows no face or small ones only."""
SMALL_FACE_PX = 30
"""A face that is narrower on the copy may have smaller neighbours that were missed."""
UPRIGHT_SCORE = 0.9
"""Score from which a face is upright to within 45 degrees; upright faces of some size get .92 to .95."""
TURN_PX = 128
"""Side of the crops on which a face's turn is judged; the face fills four tenths of it."""


@dataclass(frozen=True)
class RotatedBox:
    """A square part of a picture: middle (x, y) and side in pixels, turn in radians, clockwise as seen."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    def cut(self, frame_bgr: np.ndarray, out_px: int, most_px: float | None = None) -> np.ndarray:
        """Return the region turned upright, (out_px, out_px, 3) uint8, black beyond the frame.

        It is scaled down without aliasing; `most_px` bounds the detail it keeps, as pixels along its side.
        """
        cv2 = import_cv2()
        scale = min(1.0, (most_px or out_px) / self.side)
        reach = 0.75 * self.side + 2  # half the diagonal of a turned square, and a little
        left, top = max(0, int(self.x - reach)), max(0, int(self.y - reach))
        part = frame_bgr[top : max(0, int(self.y + reach)), left : max(0, int(self.x + reach))]
        if 0 in part.shape:
            return np.zeros((out_px, out_px, 3), np.uint8)
        small = shrink(part, scale)
        to_small = np.diag([small.shape[1] / part.shape[1], small.shape[0] / part.shape[0], 1])
        to_small[:2, 2] = -to_small[0, 0] * left, -to_small[1, 1] * top
        # warpAffine counts from the middle of the first pixel, all else here from its corner.
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = np.linalg.inv(half) @ self.to_crop(out_px) @ np.linalg.inv(to_small) @ half
        return cv2.warpAffine(small, matrix[:2], (out_px, out_px), flags=cv2.INTER_LINEAR)

    def to_crop(self, out_px: int) -> np.ndarray:
        """Return the matrix (3, 3) from picture pixels to pixels of a crop of that side."""
        cosine, sine = np.cos(self.angle) * out_px / self.side, np.sin(self.angle) * out_px / self.side
        matrix = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1.0]])
        matrix[:2, 2] = out_px / 2 - matrix[:2, :2] @ (self.x, self.y)
        return matrix


@dataclass(frozen=True)
class Detection:
    """A face: middle (x, y) and size in pixels, score in [0, 1], turn in radians, clockwise as seen."""

    x: float
    y: float
    width: float
    height: float
    score: float
    angle: float = 0.0

    @property
    def size(self) -> float:
        """Side of a square of the same area: it hardly changes when the face is turned."""
        return float(np.sqrt(self.width * self.height))


class FaceDetector:
    """YuNet: pictures in, detections out, the largest first."""

    def __init__(self):
        cv2 = import_cv2()
        network = np.frombuffer(read_verified(DETECTOR_FILE, DETECTOR_SHA256, NETWORK_ADVICE), np.uint8)
        self._network = cv2.FaceDetectorYN.create(
            "onnx", network, np.empty(0, np.uint8), (TURN_PX, TURN_PX), SCORE
        )

    def detect(self, frame_bgr: np.ndarray) -> list[Detection]:
        """Return the faces on a still picture (height, width, 3) uint8 with their turns, the largest first.

        Where nothing is found, it is searched again turned by 90 degrees: YuNet finds faces that
        lie on their side less often than those that stand on their head.
        """
        longer = max(frame_bgr.shape[:2])
        found = self._search(frame_bgr, MOST_SIDE_PX)
        smallest = min((face.width for face in found), default=0) * min(1, MOST_SIDE_PX / longer)
        if longer > MOST_SIDE_PX and smallest < SMALL_FACE_PX:
            large = self._search(frame_bgr, LARGE_SIDE_PX)
            found = large + [face for face in found if not any(_same(face, other) for other in large)]
        elif not found:
            found = self._search(frame_bgr, MOST_SIDE_PX, 2 * LEAST_SIDE_PX)
        if not found:
            width = frame_bgr.shape[1]
            turned = self._search(np.rot90(frame_bgr), MOST_SIDE_PX)  # (x, y) -> (y, width - x)
            # Its score says that it is upright on the turned picture; 0 has its turn on this one searched.
            found = [Detection(width - face.y, face.x, face.height, face.width, 0.0) for face in turned]
        found = [self._with_turn(frame_bgr, face) for face in found]
        return sorted(found, key=lambda face: -face.size)

    def _search(self, frame_bgr: np.ndarray, most_px: int, least_px: int = LEAST_SIDE_PX) -> list[Detection]:
        """Return the detections on a copy whose longer side is `most_px` at most and `least_px` at least."""
        cv2 = import_cv2()
        longer = max(frame_bgr.shape[:2])
        scale = min(most_px, max(longer, least_px)) / longer
        if scale > 1:
            copy = cv2.resize(frame_bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        else:
            copy = shrink(frame_bgr, scale)
        found = self._find(np.ascontiguousarray(copy))
        return [Detection(*(face[:4] / scale).tolist(), float(face[4])) for face in found]

    def _find(self, picture: np.ndarray) -> np.ndarray:
        """Return (faces, 5): middle, size, score; in pixels of the picture."""
        self._network.setInputSize((picture.shape[1], picture.shape[0]))
        try:
            faces = self._network.detect(picture)[1]
        except import_cv2().error as error:
            raise RuntimeError(f"YuNet failed on a picture: {error}") from error
        if faces is None:
            return np.empty((0, 5))
        return np.column_stack([faces[:, :2] + faces[:, 2:4] / 2, faces[:, 2:4], faces[:, -1]])

    def _with_turn(self, frame_bgr: np.ndarray, face: Detection) -> Detection:
        """Return a detection with its turn: that of eight at which YuNet is surest of the face."""
        if face.score >= UPRIGHT_SCORE:
            return face
        angles = np.arange(8) * np.pi / 4
        boxes = [RotatedBox(face.x, face.y, 2.6 * face.size, angle) for angle in angles]
        crops = [box.cut(frame_bgr, TURN_PX) for box in boxes]
        scores = np.zeros(8)
        sheet = np.vstack([np.hstack(crops[:4]), np.hstack(crops[4:])])  # at once: eight searches cost more
        for x, y, _, _, score in self._find(sheet):
            column, row = int(x // TURN_PX), int(y // TURN_PX)
            off_middle = np.hypot(x % TURN_PX - TURN_PX / 2, y % TURN_PX - TURN_PX / 2)
            if 0 <= column < 4 and 0 <= row < 2 and off_middle < TURN_PX / 5:
                scores[4 * row + column] = max(scores[4 * row + column], score)
        return Detection(face.x, face.y, face.width, face.height, face.score, float(angles[scores.argmax()]))


def _same(one: Detection, other: Detection) -> bool:
    return np.hypot(one.x - other.x, one.y - other.y) <= max(one.size, other.size) / 2
