"""Where frames come from: cameras, streams, video files, pictures. The sole owner of cv2 capture.

    with open_source("0", demo=DEMO_CLIP) as source:
        for frame in source:
            if frame is None: ...        # nothing new yet: keep the window alive; `source.message` says why
            else: ...                    # frame.image (height, width, 3) uint8 BGR, or None for a damaged picture

Files and pictures come whole and in order. Cameras and streams come as the newest frame only: a slow network must never
show an old face. A camera that is unplugged returns False, blocks, or repeats its last frame; all three end in a
message, attempts to open it again, and at last in `source.failure`.
"""

import collections
import contextlib
import glob
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.config import ASSETS, UserError, relative
from utils.faces.headers import PictureError
from utils.faces.images import IMAGE_SUFFIXES, import_cv2, is_image, list_images, load_picture

DEMO_CLIP = ASSETS / "demo.mp4"
VIDEO_SUFFIXES = {
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".ts",
    ".3gp",
    ".ogv",
    ".gif",
}

BACKENDS = {"win32": ("dshow", "msmf"), "darwin": ("avfoundation",), "linux": ("v4l2",)}
"""Camera back-ends by platform, in order: MSMF may take a minute to open a camera that DirectShow opens at once."""
BACKEND_CODES = {
    "any": "CAP_ANY",
    "v4l2": "CAP_V4L2",
    "dshow": "CAP_DSHOW",
    "msmf": "CAP_MSMF",
    "avfoundation": "CAP_AVFOUNDATION",
    "gstreamer": "CAP_GSTREAMER",
}

TICK_S = 0.05
"""How long a source waits for a frame before it lets the caller look after its window."""
OPEN_TIMEOUT_S = 15.0
FALLBACK_FPS = 30.0


@dataclass(frozen=True)
class Frame:
    """One frame; image is None, and `problem` says why, for a picture that can't be read.

    `captured` is on the clock of time.monotonic(). `full_size` (width, height) is that of a picture whose image is a
    smaller copy.
    """

    image: np.ndarray | None
    index: int
    timestamp_ms: int
    source: str
    captured: float
    full_size: tuple[int, int] | None = None
    problem: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels of what was filmed, which boxes are given in."""
        return self.full_size[::-1] if self.full_size else self.image.shape[:2]


@dataclass(frozen=True)
class CameraSettings:
    """What to ask a camera for; None leaves it the choice."""

    backend: str = "auto"
    width: int | None = None
    height: int | None = None
    fps: int | None = None


@dataclass(frozen=True)
class Patience:
    """Seconds until a camera counts as stalled, as frozen, and as gone for good."""

    stalled: float = 3.0
    frozen: float = 3.0
    gone: float = 30.0
    retry: float = 1.0


def open_source(text: str, settings: CameraSettings = CameraSettings(), demo: Path | None = None) -> "Source":
    """Return the source that `text` names: camera number, video file, picture, folder of pictures or stream address.

    If there is no such camera and `demo` is given, plays that clip and says so in `source.news`.
    Raises UserError if a camera (without `demo`), a file or a stream can't be opened.
    """
    if "://" in text:
        return _open_stream(text)
    if text.isdecimal() or text.startswith("/dev/"):
        camera = int(text) if text.isdecimal() else text
        capture, problem = open_camera(camera, settings)
        if capture is not None:
            return LiveSource(text, capture, lambda: open_camera(camera, settings)[0], "camera")
        if demo is None:
            raise UserError(f"no camera {text} ({problem}); plug one in, or name another with --source")
        if not demo.is_file():
            raise UserError(
                f"no camera {text} ({problem}) and no clip at {relative(demo)}; name a file with --source"
            )
        source = VideoSource(relative(demo), demo)
        source.news.append(f"no camera {text} ({problem}): playing {relative(demo)}")
        return source
    return _open_path(text)


def _open_path(text: str) -> "Source":
    path = Path(text).expanduser()
    if path.is_dir():
        pictures = list_images(path)
        if not pictures:
            raise UserError(
                f"no pictures in {text}; it should hold files like {', '.join(sorted(IMAGE_SUFFIXES)[:4])}"
            )
        return PictureSource(text, [os.path.join(text, picture.relative_to(path)) for picture in pictures])
    if not path.exists():
        raise UserError(f"no file or folder {text}; check --source")
    if is_image(path):
        return PictureSource(text)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(text, path)
    raise UserError(
        f"{text} is neither a video nor a picture by its suffix ({path.suffix or 'none'}); "
        "convert it to .mp4 or .png"
    )


class Source:
    """Base of all sources: iterate over it for `Frame`s (None: nothing new yet), close it by `with` or `close`."""

    live = False
    fps = FALLBACK_FPS

    def __init__(self, name: str, kind: str):
        self.name = name
        self.kind = kind
        """camera, stream, video, picture or folder"""
        self.news: collections.deque[str] = collections.deque()
        """what happened, for the caller to take out and tell"""
        self.message = ""
        """what is wrong at this moment, for the display"""
        self.failure = ""
        """why the source ended, if it did not end well"""

    def __iter__(self) -> Iterator[Frame | None]:
        raise NotImplementedError

    def _warn(self, message: str) -> None:
        if message != self.message:
            self.message = message
            self.news.append(message)

    def close(self) -> None:
        """Stop reading and free the device."""

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class PictureSource(Source):
    """One picture, or the pictures of a folder in order, each named by its path as given."""

    def __init__(self, name: str, names: list[str] | None = None):
        super().__init__(name, "picture" if names is None else "folder")
        self.names = [name] if names is None else names
        self._first = _read_picture(self.names[0])
        if names is None and self._first.image is None:
            raise UserError(
                f"{name} is not a picture that can be read ({self._first.problem}); choose another"
            )

    def __iter__(self) -> Iterator[Frame]:
        first, self._first = self._first, None
        yield first or _read_picture(self.names[0])
        for name in self.names[1:]:
            yield _read_picture(name)


def _read_picture(name: str) -> Frame:
    try:
        picture = load_picture(Path(name).expanduser())
    except PictureError as error:
        return Frame(None, 0, 0, name, time.monotonic(), problem=str(error))
    return Frame(picture.image, 0, 0, name, time.monotonic(), (picture.width, picture.height))


class VideoSource(Source):
    """Every frame of a video file, in order, decoded ahead in a thread of its own."""

    AHEAD = 4

    def __init__(self, name: str, path: Path | str, capture=None):
        super().__init__(name, "video")
        self._capture = capture if capture is not None else open_video(path)
        self.fps = _positive(self._capture.get(import_cv2().CAP_PROP_FPS)) or FALLBACK_FPS
        self._expected = int(_positive(self._capture.get(import_cv2().CAP_PROP_FRAME_COUNT)) or 0)
        self._frames: queue.Queue[Frame | None] = queue.Queue(self.AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read_ahead, daemon=True)

    def __iter__(self) -> Iterator[Frame | None]:
        self._thread.start()
        count = 0
        while True:
            try:
                frame = self._frames.get(timeout=TICK_S)
            except queue.Empty:
                yield None
                continue
            if frame is None:
                break
            count += 1
            yield frame
        if count == 0:
            raise UserError(f"no frame of {self.name} can be read; the file is damaged, choose another")
        if count < self._expected - max(5, self._expected // 20):  # containers estimate: 5% is no damage
            self.failure = (
                f"{self.name} ends early: {count} of {self._expected} frames could be read (cut off?)"
            )

    def _read_ahead(self) -> None:
        index, timestamp_ms = 0, -1
        while not self._stopped.is_set():
            image = _read(self._capture)
            if image is None:
                break
            position = _positive(self._capture.get(import_cv2().CAP_PROP_POS_MSEC)) or index * 1000 / self.fps
            timestamp_ms = max(timestamp_ms + 1, round(position))
            self._put(Frame(image, index, timestamp_ms, self.name, time.monotonic()))
            index += 1
        self._put(None)

    def _put(self, frame: Frame | None) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                return self._frames.put(frame, timeout=TICK_S)

    def close(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(2.0)
        if not self._thread.is_alive():  # releasing under a read that hangs would crash
            self._capture.release()


class LiveSource(Source):
    """The newest frame of a camera or stream; opened again when it fails.

    `reopen` returns a new capture, or None if there is still none; it runs in the reading thread.
    """

    live = True

    def __init__(
        self,
        name: str,
        capture,
        reopen: Callable[[], object | None],
        kind: str,
        patience: Patience = Patience(),
    ):
        super().__init__(name, kind)
        self.fps = min(max(_positive(capture.get(import_cv2().CAP_PROP_FPS)) or FALLBACK_FPS, 5.0), 60.0)
        self._reopen, self._patience = reopen, patience
        self._fresh = threading.Condition()
        self._newest: tuple[np.ndarray, float] | None = None
        self._generation = 0
        self._still: np.ndarray | None = None
        self._start_thread(capture)

    def _start_thread(self, capture) -> None:
        self._generation += 1
        self._thread = threading.Thread(
            target=self._keep_newest, args=(capture, self._generation), daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Frame | None]:
        start = seen = restarted = time.monotonic()
        index, timestamp_ms = 0, -1
        while True:
            with self._fresh:
                self._fresh.wait_for(lambda: self._newest is not None, TICK_S)
                newest, self._newest = self._newest, None
            if newest is not None:
                image, seen = newest
                timestamp_ms = max(timestamp_ms + 1, round((seen - start) * 1000))
                yield Frame(image, index, timestamp_ms, self.name, seen)
                index += 1
                continue
            silent = time.monotonic() - seen
            if silent > self._patience.gone:
                self.failure = (
                    f"{self.kind} {self.name} gave no frame for {silent:.0f} s; plug it in and start again"
                )
                return
            if silent > self._patience.stalled:
                self._warn(f"{self.kind} {self.name} gives no frame, trying again")
                if time.monotonic() - restarted > 2 * self._patience.stalled:
                    # A read that hangs can only be left behind.
                    restarted = time.monotonic()
                    self._start_thread(None)
            yield None

    def _keep_newest(self, capture, generation: int) -> None:
        changed = time.monotonic()
        last = None
        while generation == self._generation:
            if capture is None:
                capture = self._reopen()
                changed, last = time.monotonic(), None
                if capture is None:
                    time.sleep(self._patience.retry)
                    continue
            image = _read(capture)
            if image is None:
                self._warn(f"{self.kind} {self.name} is lost, trying again")
                _release(capture)
                capture = None
                time.sleep(self._patience.retry / 10)
                continue
            sample = image[::8, ::8].copy()
            if last is None or not np.array_equal(sample, last):
                changed, last = time.monotonic(), sample
            if generation == self._generation and not self._is_frozen(sample, changed):
                if self.message:
                    self.message = ""
                    self.news.append(f"{self.kind} {self.name} is back")
                with self._fresh:
                    self._newest = (image, time.monotonic())
                    self._fresh.notify()
            elif generation == self._generation:
                _release(capture)
                capture, self._still = None, sample
        _release(capture)

    def _is_frozen(self, sample: np.ndarray, changed: float) -> bool:
        """Tell whether the camera repeats its last frame; if it does so even after reopening, it is what it sees."""
        if (
            self.kind != "camera" or time.monotonic() - changed <= self._patience.frozen
        ):  # a stream may show slides
            return False
        if self._still is not None and np.array_equal(sample, self._still):
            return False
        self._warn(f"{self.kind} {self.name} repeats its last frame, opening it again")
        return True

    def close(self) -> None:
        self._generation += 1  # the thread sees it, frees the device and ends, unless a read blocks it
        self._thread.join(1.0)


def _read(capture) -> np.ndarray | None:
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


def _release(capture) -> None:
    if capture is not None:
        with contextlib.suppress(Exception):
            capture.release()


def _positive(value: float) -> float | None:
    return float(value) if np.isfinite(value) and value > 0 else None


def _silence_opencv() -> None:
    """Keep FFmpeg and V4L2 from writing their own view of an error beside ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = import_cv2().utils.logging
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)


def open_video(path: Path | str):
    """Return the cv2 capture of a video file; raises UserError if it is no video."""
    _silence_opencv()
    cv2 = import_cv2()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise UserError(
            f"{path} is not a video that can be read (empty, damaged or another format); choose another"
        )
    return capture


def _open_stream(address: str) -> Source:
    def connect():
        _silence_opencv()
        cv2 = import_cv2()
        capture = cv2.VideoCapture(
            address,
            cv2.CAP_FFMPEG,
            [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5_000],
        )
        return capture if capture.isOpened() else None

    capture = connect()
    if capture is None:
        raise UserError(f"can't open the stream {address}; check the address and the network")
    if _positive(
        capture.get(import_cv2().CAP_PROP_FRAME_COUNT)
    ):  # a file behind an address: every frame, in order
        return VideoSource(address, address, capture)
    return LiveSource(address, capture, connect, "stream")


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
    _silence_opencv()
    cv2 = import_cv2()
    names = BACKENDS.get(sys.platform, ()) + ("any",) if settings.backend == "auto" else (settings.backend,)
    problem = "it does not open; another program may use it"
    for name in names:
        capture = cv2.VideoCapture(camera, getattr(cv2, BACKEND_CODES[name]))
        if capture.isOpened():
            _apply(capture, settings)
            for _ in range(5):  # the first reads of a waking camera may fail
                if _read(capture) is not None:
                    return capture, ""
            problem = "it opens but gives no picture; another program may use it"
        _release(capture)
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
            image = _read(capture)
            size = f"{image.shape[1]} x {image.shape[0]}" if image is not None else "no frame"
            lines.append(f"{number}{name}: {size}, {capture.getBackendName()}")
            capture.release()
        elif name:
            lines.append(f"{number}{name}: {problem}")
    return lines
