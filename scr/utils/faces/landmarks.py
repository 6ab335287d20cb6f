"""Pictures and frames -> landmarks. The sole owner of mediapipe.

Facts that shaped this file (mediapipe 1.2): `import mediapipe` pulls in all of TensorFlow if it can; `mp.Image` ignores
numpy strides, so arrays must be contiguous; one bad image poisons a landmarker for good; a landmarker left to garbage
collection can hang its process.
"""

import hashlib
import os
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.config import MODELS, SHARE_VARIABLE, UserError, native_log_silenced, relative
from utils.faces.detection import Detection, FaceDetector, Region
from utils.faces.features import face_box
from utils.faces.images import import_cv2, shrink
from utils.faces.mesh import FaceMesh, MeshReading

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
PRESENCE = 0.3
"""The landmark network's own estimate that it sees a face; below it, there is none."""
LOOKS = 2, 3
"""How often a still's face is read, at least and at most: each time in the region that the points of the last gave."""
FIRST_REGIONS = 1.45, 1.2
"""Sides of the first region, in sizes of the detection; the second is tried where the first shows no face."""
FIRST_DOWN = 0.03
"""How far a face's mesh lies below the middle of its detection, in sizes of the detection (medians of FER+ and AffectNet)."""
MOST_DRIFT = 0.5, 1.7, np.radians(60)
"""A face's points may lie off its detection by so many sizes, be larger or smaller by that factor, turned by that angle."""


@dataclass(frozen=True)
class Face:
    """One face: landmarks (478, 3) float32 in image widths, blendshapes (52,) float32 in [0, 1]."""

    landmarks: np.ndarray
    blendshapes: np.ndarray

    @property
    def width(self) -> float:
        """The bounding box's width, in image widths."""
        return float(face_box(self.landmarks)[2])

    @property
    def area(self) -> float:
        """The bounding box's area, in squared image widths."""
        return float(np.prod(face_box(self.landmarks)[2:]))


def ensure_landmarker_file(path: Path = LANDMARKER_FILE, url: str = LANDMARKER_URL) -> Path:
    """Return the path of MediaPipe's model; fetch it to a temporary name, check its sha256, rename, if it is missing."""
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
                f"the download of {path.name} is not the expected file (sha256 differs); run the command again"
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
    """Return mediapipe and its vision module, without TensorFlow (4.6 s against 1.1 s) and without its usage reports."""
    if SHARE_VARIABLE not in os.environ:
        # MediaPipe Tasks reports usage to Google and has no switch. Its HTTP client honours these variables; nothing
        # listens on the discard port, so the report ends here. Downloads are done before a landmarker is made.
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
    """Faces with their landmarks, the largest first: on frames of a video, or on still pictures. A context manager.

    `video=True` tracks from frame to frame with MediaPipe and wants strictly increasing timestamps. Still pictures stand
    alone: YuNet finds the faces, and MediaPipe's networks read each upright.
    """

    def __init__(self, video: bool = False, max_faces: int | None = 1, confidence: float = CONFIDENCE):
        """`max_faces`: None for all (of still pictures)."""
        self._video = video
        self._max_faces = max_faces
        self._confidence = confidence
        self._scale = 1.0
        if video:
            self._open()
        else:
            self._detector, self._mesh = FaceDetector(), FaceMesh(ensure_landmarker_file())

    def _open(self) -> None:
        self._mediapipe, vision = _import_mediapipe()
        options = vision.FaceLandmarkerOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=str(ensure_landmarker_file())),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=self._max_faces,
            min_face_detection_confidence=self._confidence,
            min_face_presence_confidence=self._confidence,
            min_tracking_confidence=self._confidence,
            output_face_blendshapes=True,
        )
        with native_log_silenced():
            self._landmarker = vision.FaceLandmarker.create_from_options(options)

    def close(self) -> None:
        """Free MediaPipe's threads; a landmarker must not be left to garbage collection."""
        if self._video:
            self._landmarker.close()

    def __enter__(self) -> "FaceLandmarker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def detect(self, frame_bgr: np.ndarray, timestamp_ms: int) -> list[Face]:
        """Return the faces on a video's frame (height, width, 3) uint8, the largest first.

        Frames are scaled down so that the smallest face of the last one is `READ_WIDTH_PX` wide. Raises ValueError
        for an array of another shape or type, RuntimeError if MediaPipe fails (it starts afresh).
        """
        _check(frame_bgr)
        faces = self._detect(frame_bgr, self._scale, timestamp_ms)
        scale = READ_WIDTH_PX / max(
            min((face.width for face in faces), default=0) * frame_bgr.shape[1], READ_WIDTH_PX
        )
        if abs(scale / self._scale - 1) > 0.1:  # calm: a size that changes with every frame moves the points
            self._scale = scale
        return faces

    def _detect(self, frame_bgr: np.ndarray, scale: float, timestamp_ms: int) -> list[Face]:
        cv2 = import_cv2()
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB,
            data=cv2.cvtColor(shrink(frame_bgr, scale), cv2.COLOR_BGR2RGB),
        )
        try:
            result = self._landmarker.detect_for_video(image, timestamp_ms)
        except Exception as error:  # whatever it was: this landmarker answers nothing any more
            self.close()
            self._open()
            raise RuntimeError(f"MediaPipe failed on a frame: {error}") from error
        aspect = frame_bgr.shape[0] / frame_bgr.shape[1]
        faces = [
            _to_face(points, scores, aspect)
            for points, scores in zip(result.face_landmarks, result.face_blendshapes)
        ]
        if len(faces) > 1:
            faces.sort(key=lambda face: -face.area)
        return faces

    def detect_picture(self, frame_bgr: np.ndarray) -> list[Face]:
        """Return the faces on a still picture (height, width, 3) uint8, the largest first.

        Raises ValueError for an array of another shape or type, RuntimeError if the detector fails.
        """
        return [face for face, _ in self._read_picture(frame_bgr, mirror=False)]

    def detect_mirrored(self, frame_bgr: np.ndarray) -> list[tuple[Face, Face]]:
        """Return the faces on a still picture and, for each, the same face on the mirror image of the picture.

        For test-time augmentation: the second look falls a little differently. Raises as `detect_picture` does.
        """
        return self._read_picture(frame_bgr, mirror=True)

    def _read_picture(self, frame_bgr: np.ndarray, mirror: bool) -> list[tuple[Face, Face | None]]:
        _check(frame_bgr)
        faces, regions = [], []
        for detection in self._detector.detect(frame_bgr):
            reading = self._read(frame_bgr, detection)
            if reading is None or any(_overlap(reading.region, other) for other in regions):
                continue
            mirrored = self._mesh.read(frame_bgr, reading.region, mirrored=True) if mirror else None
            regions.append(reading.region)
            faces.append(tuple(seen and _face_of(seen, frame_bgr.shape[1]) for seen in (reading, mirrored)))
            if len(faces) == self._max_faces:
                break
        return sorted(faces, key=lambda face: -face[0].area)

    def _read(self, frame_bgr: np.ndarray, detection: Detection) -> MeshReading | None:
        """Return the reading of a detected face, or None if its points show no face there."""
        down = FIRST_DOWN * detection.size
        x, y = detection.x - down * np.sin(detection.angle), detection.y + down * np.cos(detection.angle)
        least, most = LOOKS
        for side in FIRST_REGIONS:
            region = Region(x, y, side * detection.size, detection.angle)
            for look in range(1, most + 1):
                reading = self._mesh.read(frame_bgr, region)
                if _drifted(reading.region, detection):
                    break
                if look >= least and reading.presence >= PRESENCE:
                    return reading
                region = reading.region
        return None


def _check(frame_bgr: np.ndarray) -> None:
    shape = frame_bgr.shape
    if len(shape) != 3 or shape[2] != 3 or frame_bgr.dtype != np.uint8 or 0 in shape:
        raise ValueError(f"expected a (height, width, 3) uint8 frame, got {shape} {frame_bgr.dtype}")


def _drifted(region: Region, detection: Detection) -> bool:
    """Tell whether the points of a detected face lie on something else, or were read the wrong way up."""
    off, ratio, turn = MOST_DRIFT
    return (
        np.hypot(region.x - detection.x, region.y - detection.y) > off * detection.size
        or not 1 / ratio < region.side / (FIRST_REGIONS[0] * detection.size) < ratio
        or abs((region.angle - detection.angle + np.pi) % (2 * np.pi) - np.pi) > turn
    )


def _overlap(one: Region, other: Region) -> bool:
    """Tell whether two regions show the same face: the middle of one lies well within the other's mesh."""
    return np.hypot(one.x - other.x, one.y - other.y) < 0.25 * max(one.side, other.side)


def _face_of(reading: MeshReading, width: int) -> Face:
    return Face(reading.points / np.float32(width), reading.blendshapes)


def _to_face(points, scores, aspect: float) -> Face:
    # One list for each axis: numpy reads three long lists in half the time that 478 short ones take.
    x, y, z = [point.x for point in points], [point.y for point in points], [point.z for point in points]
    landmarks = np.ascontiguousarray(np.array((x, y, z), np.float32).T)
    landmarks[:, 1] *= aspect
    return Face(landmarks, np.array([score.score for score in scores], np.float32))
