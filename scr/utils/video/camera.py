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
OPEN_TIMEOUT_S = 15.0
LEAST_SIDE_PX = 16
"""Raw data that a back-end did not decode comes as one row."""


@dataclass(frozen=True)
class CameraSettings:
    """What to ask a camera for; None leaves it the choice."""

    backend: str = "auto"
    width: int | None = None
    height: int | None = None
    fps: int | None = None


class Camera:
    """An open device: `next` gives a frame (height, width, 3) uint8 BGR; it ends when a read fails."""

    def __init__(self, capture):
        self._capture = capture
        self.backend = capture.getBackendName() if capture.isOpened() else ""
        self.problem = ""
        """what may be wrong if no frame could be used"""

    def __next__(self) -> np.ndarray:
        with contextlib.suppress(Exception):  # cv2.error, and what back-ends make of a device that vanished
            ok, image = self._capture.read()
            if ok and image is not None:
                self.problem = f"it gives frames of {image.shape} {image.dtype}; try another --camera-backend"
                return to_bgr(image)
        raise StopIteration

    def close(self) -> None:
        """Free the device."""
        with contextlib.suppress(Exception):
            self._capture.release()


def to_bgr(image: np.ndarray) -> np.ndarray:
    """Return what a device gives as BGR of 8 bits; raises ValueError if it is no picture."""
    cv2 = import_cv2()
    if image.dtype == np.uint16:  # depth and infrared cameras use some of the 16 bits
        image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or min(image.shape[:2]) < LEAST_SIDE_PX:
        raise ValueError(f"{image.shape} {image.dtype}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels < 3:
        return cv2.cvtColor(image, cv2.COLOR_YUV2BGR_YUY2 if channels == 2 else cv2.COLOR_GRAY2BGR)
    return image[:, :, :3]


def open_camera(camera: int | str, settings: CameraSettings = CameraSettings()) -> tuple[Camera | None, str]:
    """Return (a camera that has given a frame, ""), or (None, the reason why there is none)."""
    if sys.platform.startswith("linux") and (problem := _device_problem(camera)):
        return None, problem
    if sys.platform == "darwin":  # AVFoundation asks for permission, and only the main thread may
        return _try_camera(camera, settings)
    result = []
    thread = threading.Thread(target=lambda: result.append(_try_camera(camera, settings)), daemon=True)
    thread.start()
    thread.join(OPEN_TIMEOUT_S)
    return result[0] if result else (None, f"no answer in {OPEN_TIMEOUT_S:.0f} s")


def _device_problem(camera: int | str) -> str:
    device = f"/dev/video{camera}" if isinstance(camera, int) else camera
    if not os.path.exists(device):
        return f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} may not be opened; add yourself to the group video"
    return ""


def _try_camera(camera: int | str, settings: CameraSettings) -> tuple[Camera | None, str]:
    cv2 = import_cv2()
    names = BACKENDS.get(sys.platform, ()) + ("any",) if settings.backend == "auto" else (settings.backend,)
    problem = "it does not open; another program may use it"
    for name in names:
        capture = cv2.VideoCapture(camera, getattr(cv2, f"CAP_{name.upper()}"))
        opened = Camera(capture)
        if capture.isOpened():
            _apply(capture, settings)
            for _ in range(5):  # the first reads of a waking camera may fail
                if next(opened, None) is not None:
                    return opened, ""
            problem = opened.problem or "it opens but gives no picture; another program may use it"
        opened.close()
    return None, problem


def _apply(capture, settings: CameraSettings) -> None:
    cv2 = import_cv2()
    if settings.width or settings.height:  # raw frames of this size would not fit through USB 2 at full rate
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    wanted = {
        "FRAME_WIDTH": settings.width,
        "FRAME_HEIGHT": settings.height,
        "FPS": settings.fps,
        "BUFFERSIZE": 1,
    }
    for name, value in wanted.items():
        if value:
            capture.set(getattr(cv2, f"CAP_PROP_{name}"), value)


def list_cameras() -> list[str]:
    """Return a line for each camera: its number, name and the size it gives."""
    numbers = range(5)
    if sys.platform.startswith("linux"):
        numbers = sorted(int(device.removeprefix("/dev/video")) for device in glob.glob("/dev/video[0-9]*"))
    lines = []
    for number in numbers:
        camera, problem = open_camera(number)
        name_file = Path(f"/sys/class/video4linux/video{number}/name")
        name = f" {name_file.read_text().strip()}" if name_file.exists() else ""
        if camera is not None:
            image = next(camera, None)
            size = "no frame" if image is None else f"{image.shape[1]} x {image.shape[0]}"
            lines.append(f"{number}{name}: {size}, {camera.backend}")
            camera.close()
        elif name:
            lines.append(f"{number}{name}: {problem}")
    return lines
