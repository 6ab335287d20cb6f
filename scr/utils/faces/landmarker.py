"""Pictures and frames -> landmarks. The sole owner of mediapipe.

Facts that shaped this file (mediapipe 1.2): `import mediapipe` pulls in all of TensorFlow if it can;
`mp.Image` ignores numpy strides, so arrays must be contiguous; one bad image poisons a landmarker for good; a
landmarker left to garbage collection can hang its process.
"""

import hashlib
import os
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import MODELS, SHARE_VARIABLE, UserError, native_log_silenced, relative
from .answers import AnswerReader
from .detection import FaceDetector, RotatedBox
from .features import face_box
from .images import import_cv2, shrink
from .mesh import REGION_SCALE, FaceMesh, Mesh, overlap
from .tracking import Follower, Recogniser

LANDMARKER_FILE = MODELS / "face_landmarker.task"
LANDMARKER_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
    "face_landmarker.task"
)
LANDMARKER_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"

CONFIDENCE = 0.3
"""MediaPipe's thresholds in videos."""
READ_WIDTH_PX = 58
"""Width at which wider faces of videos are read, the same as on stills: `mesh.READ_REGION_PX` says why."""


@dataclass(frozen=True)
class Face:
    """One face: landmarks (478, 3) float32 in image widths, blendshapes (52,) float32 in [0, 1].

    In videos `person` tells people apart: the same number on two frames is the same person.
    """

    landmarks: np.ndarray
    blendshapes: np.ndarray
    person: int | None = None

    @property
    def width(self) -> float:
        """The bounding box's width, in image widths."""
        return float(face_box(self.landmarks)[2])

    @property
    def area(self) -> float:
        """The bounding box's area, in squared image widths."""
        return float(np.prod(face_box(self.landmarks)[2:]))


def ensure_landmarker_file(path: Path = LANDMARKER_FILE, url: str = LANDMARKER_URL) -> Path:
    """Return the path of MediaPipe's model; where it is missing, it is fetched and checked by its sha256."""
    if path.exists():
        if hashlib.sha256(path.read_bytes()).hexdigest() != LANDMARKER_SHA256:
            raise UserError(
                f"{relative(path)} is damaged or another version; delete it and run the command again"
            )
        return path
    print(f"fetching {relative(path)} (3.8 MB) from {url}", file=sys.stderr)
    partial = path.with_name(path.name + f".part{os.getpid()}")
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read()
        if hashlib.sha256(data).hexdigest() != LANDMARKER_SHA256:
            raise UserError(
                f"the download of {path.name} is not the expected file (sha256 differs);"
                " run the command again"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"can't fetch {path.name}: {error}; download {url} to {relative(path)} by hand"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _import_mediapipe():
    """Return mediapipe and its vision module, without TensorFlow (4.6 s against 1.1 s) and usage reports."""
    if SHARE_VARIABLE not in os.environ:
        # MediaPipe Tasks reports usage to Google and has no switch. Its HTTP client honours these variables;
        # nothing listens on the discard port, so the report ends here. Downloads are done before a landmarker
        # is made.
        os.environ.update(
            dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
        )
        os.environ.update(dict.fromkeys(("no_proxy", "NO_PROXY"), ""))
    blocked = "tensorflow" not in sys.modules
    if blocked:
        sys.modules["tensorflow"] = None
    try:
        import mediapipe
        from mediapipe.tasks.python import vision
    except (ImportError, OSError) as error:
        raise UserError(
            f"MediaPipe can't load: {error}; on Debian or Ubuntu run: apt-get install libegl1 libgles2 libgl1"
        ) from error
    finally:
        if blocked:
            del sys.modules["tensorflow"]
    return mediapipe, vision


class FaceLandmarker:
    """Faces with their landmarks, the largest first, on frames of a video or on stills. A context manager.

    `video=True` wants strictly increasing timestamps: one face is tracked and smoothed by MediaPipe, several
    by `tracking`. Still pictures stand alone: YuNet finds the faces, and MediaPipe's networks read each
    upright.
    """

    def __init__(self, video: bool = False, max_faces: int | None = 1):
        """`max_faces`: None for all."""
        self._max_faces = max_faces
        self._alone = video and max_faces == 1
        self._scale = 1.0
        if self._alone:
            self._recogniser = Recogniser()
            self._open()
        else:
            self._detector, self._mesh = FaceDetector(), FaceMesh(ensure_landmarker_file())
            self._follower = Follower(self._detector, self._mesh, max_faces or sys.maxsize)

    def _open(self) -> None:
        self._mediapipe, vision = _import_mediapipe()
        options = vision.FaceLandmarkerOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=str(ensure_landmarker_file())),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=1,
            min_face_detection_confidence=CONFIDENCE,
            min_face_presence_confidence=CONFIDENCE,
            min_tracking_confidence=CONFIDENCE,
            output_face_blendshapes=True,
        )
        with native_log_silenced():
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        self._answers = AnswerReader(self._landmarker, self._mediapipe.__version__)

    def close(self) -> None:
        """Free MediaPipe's threads; a landmarker must not be left to garbage collection."""
        if self._alone:
            self._landmarker.close()

    def __enter__(self) -> "FaceLandmarker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def detect(self, frame_bgr: np.ndarray, timestamp_ms: int) -> list[Face]:
        """Return the faces on a video's frame (height, width, 3) uint8, the largest first.

        Raises ValueError for another shape or type, RuntimeError if MediaPipe fails (it starts afresh).
        """
        _check(frame_bgr)
        width = frame_bgr.shape[1]
        if self._alone:
            return self._detect_alone(frame_bgr, timestamp_ms)
        faces = [
            _face_of(reading, width, person)
            for person, reading in self._follower.follow(frame_bgr, timestamp_ms)
        ]
        return sorted(faces, key=lambda face: -face.area)

    def _detect_alone(self, frame_bgr: np.ndarray, timestamp_ms: int) -> list[Face]:
        """Return the one face, if there is one.

        Frames are scaled down so that it would be `READ_WIDTH_PX` wide if it were as large as on the last.
        """
        cv2 = import_cv2()
        height, width = frame_bgr.shape[:2]
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB,
            data=cv2.cvtColor(shrink(frame_bgr, self._scale), cv2.COLOR_BGR2RGB),
        )
        try:
            answer = self._answers.detect(image, timestamp_ms)
        except Exception as error:  # whatever it was: this landmarker answers nothing any more
            self.close()
            self._open()
            raise RuntimeError(f"MediaPipe failed on a frame: {error}") from error
        if answer is None:
            self._scale = 1.0
            return []
        landmarks, blendshapes = answer
        landmarks[:, 1] *= height / width
        x, y, box_width, box_height = (face_box(landmarks) * width).tolist()
        scale = min(1.0, READ_WIDTH_PX / max(box_width, 1))
        if abs(scale / self._scale - 1) > 0.1:  # calm: a size that changes with every frame moves the points
            self._scale = scale
        region = RotatedBox(x + box_width / 2, y + box_height / 2, REGION_SCALE * max(box_width, box_height))
        return [Face(landmarks, blendshapes, self._recogniser.number(frame_bgr, region))]

    def detect_picture(self, frame_bgr: np.ndarray) -> list[Face]:
        """Return the faces on a still picture (height, width, 3) uint8, the largest first.

        Raises ValueError for an array of another shape or type, RuntimeError if the detector fails.
        """
        _check(frame_bgr)
        faces, regions = [], []
        for detection in self._detector.detect(frame_bgr):
            reading = self._mesh.find(frame_bgr, detection)
            if reading is None or any(overlap(reading.region, other) for other in regions):
                continue
            regions.append(reading.region)
            faces.append(_face_of(reading, frame_bgr.shape[1]))
            if len(faces) == self._max_faces:
                break
        return sorted(faces, key=lambda face: -face.area)


def _check(frame_bgr: np.ndarray) -> None:
    shape = frame_bgr.shape
    if len(shape) != 3 or shape[2] != 3 or frame_bgr.dtype != np.uint8 or 0 in shape:
        raise ValueError(f"expected a (height, width, 3) uint8 frame, got {shape} {frame_bgr.dtype}")


def _face_of(reading: Mesh, width: int, person: int | None = None) -> Face:
    return Face(reading.points / np.float32(width), reading.blendshapes, person)
