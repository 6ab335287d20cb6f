"""Where frames go: annotated videos and pictures. The sole owner of cv2 video writing."""

import contextlib
from pathlib import Path

import numpy as np

from utils.config import UserError, atomic_path, relative
from utils.faces.images import import_cv2

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""Writers that work in the wheels of OpenCV 5, by suffix."""


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write a picture, atomically; raises UserError if the suffix names no format or the disk refuses."""
    cv2 = import_cv2()
    try:
        ok, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        ok = False
    if not ok:
        raise UserError(f"{path} is not a picture's name; end it in .png or .jpg")
    with atomic_path(path) as partial:
        partial.write_bytes(data.tobytes())


class VideoRecorder:
    """Writes frames to a video file; a context manager that renames the file into place when the block ends well.

    In real time (`live`) a frame is repeated or dropped so that the file runs as fast as the camera did.
    """

    def __init__(self, path: Path, fps: float, live: bool = False):
        if path.suffix.lower() not in CODECS:
            raise UserError(f"{path} is not a video's name; end it in {' or '.join(CODECS)}")
        self.path, self._fps, self._live = path, fps, live
        self._files = contextlib.ExitStack()
        self._writer = None
        self.written = 0

    def __enter__(self) -> "VideoRecorder":
        return self

    def __exit__(self, *exception) -> None:
        if self._writer is not None:
            self._writer.release()
        self._files.__exit__(*exception)

    def write(self, image: np.ndarray, timestamp_ms: int) -> None:
        """Add a picture (height, width, 3) uint8; one of another size than the first is fitted into the first's."""
        if self._writer is None:
            self._open(image)
        image = _fit(image, self._size)
        due = int(timestamp_ms * self._fps / 1000) + 1 if self._live else self.written + 1
        while self.written < due:
            self._writer.write(image)
            self.written += 1

    def _open(self, image: np.ndarray) -> None:
        cv2 = import_cv2()
        partial = self._files.enter_context(atomic_path(self.path))
        self._size = (image.shape[1], image.shape[0])
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(partial), codec, self._fps, self._size)
        if not self._writer.isOpened():
            raise UserError(
                f"can't write {relative(self.path)}; choose another folder or suffix ({', '.join(CODECS)})"
            )


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the picture scaled into `size` (width, height) with black bars: a writer drops other sizes silently."""
    width, height = size
    if image.shape[:2] == (height, width):
        return image
    cv2 = import_cv2()
    scale = min(width / image.shape[1], height / image.shape[0])
    small = cv2.resize(image, (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))))
    fitted = np.zeros((height, width, 3), np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    fitted[top : top + small.shape[0], left : left + small.shape[1]] = small
    return fitted
