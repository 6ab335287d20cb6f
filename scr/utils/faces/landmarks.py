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
from utils.faces.features import face_box
from utils.faces.images import import_cv2, shrink

LANDMARKER_FILE = MODELS / "face_landmarker.task"
LANDMARKER_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
    "face_landmarker.task"
)
LANDMARKER_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"

CONFIDENCE = 0.3
"""Detection threshold: at .3, 94% of FER2013's 48 px faces are found, at the default of .5 90%."""
BORDERS = ((0.3, "BORDER_REPLICATE"), (0.5, "BORDER_CONSTANT"), (0.8, "BORDER_CONSTANT"))
"""Further looks at a picture without a face: a border, as a part of the longer side, replicated or black.

Of 500 FER2013 faces that are found neither as they are nor with the replicated border, black borders of .5 and then .8
find 69%; on 42 pictures without a face they found none.
"""
READ_WIDTH_PX = 75
"""Width at which wider faces are read: 95% of those that the shipped model was trained on are narrower, and on sharper faces
MediaPipe's points lie elsewhere. Measured, two looks, in place of 175 and 127 px: London .780 -> .841, JAFFE .744 -> .808."""
READ_RANGE_PX = (50, 115)
"""Width of a face on a still picture that is as good: up to 96 px London's and JAFFE's figures stay, from 144 on they fall."""
FIRST_SIDE_PX = 170
"""Shorter side of a still picture at which a portrait's face, a third to three fifths of it wide, is found and read in one look."""
FEW_FACES = 3
"""Whoever asks for more wants the small ones too, which that one look misses."""


@dataclass(frozen=True)
class Face:
    """One face: landmarks (478, 3) float32 in image widths, blendshapes (52,) float32 in [0, 1]."""

    landmarks: np.ndarray
    blendshapes: np.ndarray

    def moved(self, left: int, top: int, part: int, whole: int) -> "Face":
        """Return the face of a part of a picture, `part` pixels wide with its corner at (left, top), in widths of the whole."""
        shift = np.array([left / whole, top / whole, 0], np.float32)
        return Face(self.landmarks * np.float32(part / whole) + shift, self.blendshapes)

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
    """MediaPipe's face landmarker as a context manager: frames in, faces out, the largest first.

    `video=True` tracks from frame to frame and wants strictly increasing timestamps; else each picture stands alone.
    """

    def __init__(self, video: bool = False, max_faces: int = FEW_FACES, confidence: float = CONFIDENCE):
        self._video = video
        self._max_faces = max_faces
        self._confidence = confidence
        self._scale = 1.0
        self._open()

    def _open(self) -> None:
        self._mediapipe, vision = _import_mediapipe()
        mode = vision.RunningMode.VIDEO if self._video else vision.RunningMode.IMAGE
        options = vision.FaceLandmarkerOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=str(ensure_landmarker_file())),
            running_mode=mode,
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
        self._landmarker.close()

    def __enter__(self) -> "FaceLandmarker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def detect(self, frame_bgr: np.ndarray, timestamp_ms: int | None = None) -> list[Face]:
        """Return the faces on `frame_bgr` (height, width, 3) uint8, the largest first; `timestamp_ms` in video mode.

        In video mode, frames are scaled down so that the smallest face of the last one is `READ_WIDTH_PX` wide. Raises ValueError
        for an array of another shape or type, RuntimeError if MediaPipe fails (it starts afresh).
        """
        if not self._video:
            return self._detect(frame_bgr)
        faces = self._detect(frame_bgr, self._scale, timestamp_ms)
        scale = READ_WIDTH_PX / max(
            min((face.width for face in faces), default=0) * frame_bgr.shape[1], READ_WIDTH_PX
        )
        if abs(scale / self._scale - 1) > 0.1:  # calm: a size that changes with every frame moves the points
            self._scale = scale
        return faces

    def _detect(
        self, frame_bgr: np.ndarray, scale: float = 1.0, timestamp_ms: int | None = None
    ) -> list[Face]:
        if (
            frame_bgr.ndim != 3
            or frame_bgr.shape[2] != 3
            or frame_bgr.dtype != np.uint8
            or 0 in frame_bgr.shape
        ):
            raise ValueError(
                f"expected a (height, width, 3) uint8 frame, got {frame_bgr.shape} {frame_bgr.dtype}"
            )
        cv2 = import_cv2()
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB,
            data=cv2.cvtColor(shrink(frame_bgr, scale), cv2.COLOR_BGR2RGB),
        )
        try:
            result = (
                self._landmarker.detect_for_video(image, timestamp_ms)
                if self._video
                else self._landmarker.detect(image)
            )
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
        """Return the faces on a still picture, the largest first, wide ones read at `READ_WIDTH_PX`.

        If there are none, it is looked at again with the borders of `BORDERS`. Raises as `detect` does.
        """
        scale = (
            min(1.0, FIRST_SIDE_PX / max(1, min(frame_bgr.shape[:2])))
            if self._max_faces <= FEW_FACES
            else 1.0
        )
        faces = self._detect(frame_bgr, scale)
        if (
            scale < 1
            and min((face.width for face in faces), default=0) * frame_bgr.shape[1] * scale < READ_RANGE_PX[0]
        ):
            scale, faces = (
                1.0,
                self._detect(frame_bgr),
            )  # nothing, or small faces, among which the largest may be missed
        for part, kind in BORDERS:
            if faces:
                break
            faces = self._detect_with_border(frame_bgr, part, kind)
        return sorted(
            (self._read_again(frame_bgr, face, scale) for face in faces), key=lambda face: -face.area
        )

    def _read_again(self, frame_bgr: np.ndarray, face: Face, scale: float) -> Face:
        """Return a face, read again at `READ_WIDTH_PX` if it was wider than `READ_RANGE_PX` on the picture at that scale."""
        width = frame_bgr.shape[1]
        if face.width * width * scale <= READ_RANGE_PX[1]:
            return face
        x, y, box_width, box_height = face_box(face.landmarks) * width
        middle_x, middle_y, reach = x + box_width / 2, y + box_height / 2, 1.5 * max(box_width, box_height)
        left, top = max(0, int(middle_x - reach)), max(0, int(middle_y - reach))
        crop = frame_bgr[top : int(middle_y + reach), left : int(middle_x + reach)]
        again = [
            found.moved(left, top, crop.shape[1], width)
            for found in self._detect(crop, READ_WIDTH_PX / box_width)
        ]
        distance = [
            np.linalg.norm(found.landmarks.mean(axis=0) - face.landmarks.mean(axis=0)) for found in again
        ]
        return again[int(np.argmin(distance))] if again and min(distance) < face.width / 2 else face

    def _detect_with_border(self, frame_bgr: np.ndarray, part: float, kind: str) -> list[Face]:
        cv2 = import_cv2()
        height, width = frame_bgr.shape[:2]
        border = round(part * max(height, width))
        padded = cv2.copyMakeBorder(frame_bgr, border, border, border, border, getattr(cv2, kind))
        return [face.moved(-border, -border, padded.shape[1], width) for face in self._detect(padded)]


def _to_face(points, scores, aspect: float) -> Face:
    # One list for each axis: numpy reads three long lists in half the time that 478 short ones take.
    x, y, z = [point.x for point in points], [point.y for point in points], [point.z for point in points]
    landmarks = np.ascontiguousarray(np.array((x, y, z), np.float32).T)
    landmarks[:, 1] *= aspect
    return Face(landmarks, np.array([score.score for score in scores], np.float32))
