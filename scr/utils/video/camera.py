"""Cameras, by OpenCV: which there are, how they are opened, why one is not. The sole owner of cv2 capture."""

import contextlib
import glob
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..faces.images import import_cv2

BACKENDS = {"win32": ("dshow", "msmf"), "darwin": ("avfoundation",), "linux": ("v4l2",)}
"""Camera back-ends by platform, in order: MSMF may take a minute where DirectShow opens a camera at once."""
BACKEND_CODES = {
    "any": "CAP_ANY",
    "v4l2": "CAP_V4L2",
    "dshow": "CAP_DSHOW",
    "msmf": "CAP_MSMF",
    "avfoundation": "CAP_AVFOUNDATION",
    "gstreamer": "CAP_GSTREAMER",
}

OPEN_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class CameraSettings:
    """What to ask a camera for; None leaves it the choice."""

    backend: str = "auto"
    width: int | None = None
    height: int | None = None
    fps: int | None = None


def open_camera(camera: int | str, settings: CameraSettings = CameraSettings()) -> tuple[object | None, str]:
    """Return (capture that has given a frame, ""), or (None, the reason why there is none)."""
    if problem := _device_problem(camera):
        return None, problem
    if sys.platform == "darwin":  # AVFoundation asks for permission, and only the main thread may
        return _try_camera(camera, settings)
    result = []
    thread = threading.Thread(target=lambda: result.append(_try_camera(camera, settings)), daemon=True)
    thread.start()
    thread.join(OPEN_TIMEOUT_S)
    return result[0] if result else (None, f"no answer in {OPEN_TIMEOUT_S:.0f} s")


def _device_problem(camera: int | str) -> str:
    if not sys.platform.startswith("linux"):
        return ""
    device = f"/dev/video{camera}" if isinstance(camera, int) else camera
    if not os.path.exists(device):
        return f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} may not be opened; add yourself to the group video"
    return ""


def _try_camera(camera: int | str, settings: CameraSettings) -> tuple[object | None, str]:
    cv2 = import_cv2()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # V4L2 has its own view of an error
    names = BACKENDS.get(sys.platform, ()) + ("any",) if settings.backend == "auto" else (settings.backend,)
    problem = "it does not open; another program may use it"
    for name in names:
        capture = cv2.VideoCapture(camera, getattr(cv2, BACKEND_CODES[name]))
        if capture.isOpened():
            _apply(capture, settings)
            for _ in range(5):  # the first reads of a waking camera may fail
                if read_image(capture) is not None:
                    return capture, ""
            problem = "it opens but gives no picture; another program may use it"
        release(capture)
    return None, problem


def _apply(capture, settings: CameraSettings) -> None:
    cv2 = import_cv2()
    if settings.width or settings.height:  # raw frames of this size would not fit through USB 2 at full rate
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    for key, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, settings.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
        (cv2.CAP_PROP_FPS, settings.fps),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ):
        if value:
            capture.set(key, value)


def list_cameras() -> list[str]:
    """Return a line for each camera: its number, name and the size it gives."""
    if sys.platform.startswith("linux"):
        numbers = sorted(int(device.removeprefix("/dev/video")) for device in glob.glob("/dev/video[0-9]*"))
    else:
        numbers = range(5)
    lines = []
    for number in numbers:
        capture, problem = open_camera(number)
        name_file = Path(f"/sys/class/video4linux/video{number}/name")
        name = f" {name_file.read_text().strip()}" if name_file.exists() else ""
        if capture is not None:
            image = read_image(capture)
            size = f"{image.shape[1]} x {image.shape[0]}" if image is not None else "no frame"
            lines.append(f"{number}{name}: {size}, {capture.getBackendName()}")
            capture.release()
        elif name:
            lines.append(f"{number}{name}: {problem}")
    return lines


def read_image(capture) -> np.ndarray | None:
    """Return the next frame (height, width, 3) uint8 BGR, or None if there is none that can be used."""
    try:
        ok, image = capture.read()
    except Exception:  # cv2.error, and what back-ends make of a device that vanished
        return None
    if not ok or image is None or 0 in image.shape or image.dtype != np.uint8:
        return None
    if image.ndim == 2 or image.shape[2] == 1:
        return import_cv2().cvtColor(image, import_cv2().COLOR_GRAY2BGR)
    return image[:, :, :3]


def release(capture) -> None:
    if capture is not None:
        with contextlib.suppress(Exception):
            capture.release()
