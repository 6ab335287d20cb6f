"""Where frames come from: cameras, streams, video files, pictures, folders of both.

with open_source("0", demo=DEMO_CLIP) as source:
    for frame in source:
        if frame is None: ...    # nothing new yet: keep the window alive; `source.message` says why
        else: ...                # frame.image (height, width, 3) uint8 BGR, None if it can't be read
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config import ASSETS, UserError, relative
from ..faces.images import PictureError, check_picture, is_animated, is_image, load_picture
from ..folders import HEIF_SUFFIXES, list_files, list_reasons
from .camera import CameraSettings, open_camera
from .frames import TICK_S, Frame, Source
from .live_source import LiveSource
from .video_reader import VideoReader, open_video

DEMO_CLIP = ASSETS / "demo.mp4"
DEMO_BEGIN_S = 12.5
"""Where the clip begins in a window, once; then it goes round: she laughs from here on."""
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .asf .flv .f4v .ts .mts .m2ts .vob .3gp .3g2 .ogv"
    " .mxf .dv .mjpeg .mjpg .y4m .h264 .hevc".split()
)


def open_source(
    text: str, settings: CameraSettings | None = None, demo: Path | None = None, outputs: Sequence[Path] = ()
) -> Source:
    """Return the source that `text` names: camera number, video, picture, folder of both, or stream address.

    A file or folder whose name is a number is meant if it is there, but for 0. `outputs` are left out of a
    folder.
    If there is no such camera and `demo` is given, plays that clip and says so in `source.news`.
    Raises UserError if a camera (without `demo`), a file or a stream can't be opened.
    """
    settings = settings or CameraSettings()
    if "://" in text:
        return _open_stream(text)
    if (camera := _camera_of(text)) is not None:
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
        source.is_demo = True
        source.news.append(f"no camera {text} ({problem}): playing {relative(demo)}")
        return source
    return _open_path(text, outputs)


def names_file(text: str) -> bool:
    """Tell whether `text` means a file or a folder, there or not; else it means a camera or a stream."""
    return "://" not in text and _camera_of(text) is None


def _camera_of(text: str) -> int | str | None:
    if text.isdecimal() and (text == "0" or not os.path.exists(text)):
        return int(text)
    return text if text.startswith(("/dev/video", "/dev/v4l")) else None


def _open_path(text: str, outputs: Sequence[Path]) -> Source:
    path = _local_path(text)
    if path.is_dir():
        return FolderSource(text, path, outputs)
    if not os.path.lexists(path):
        raise UserError(f"no file or folder {text}; check --source")
    if not path.is_file():
        raise UserError(f"{text} is neither a file nor a folder; check --source")
    if _is_still(path):
        return PictureSource(text, path)
    if path.suffix.lower() in VIDEO_SUFFIXES or is_animated(path):
        return VideoSource(text, path)
    if path.suffix.lower() in HEIF_SUFFIXES:
        raise UserError(f"{text}: to read {path.suffix} pictures, run: pip install pillow-heif")
    raise UserError(
        f"{text} is neither a video nor a picture by its suffix ({path.suffix or 'none'}); "
        "convert it to .mp4 or .png"
    )


def _local_path(text: str) -> Path:
    """Return the path that a user means: `~` is the home folder unless a file has that name."""
    path = Path(text)
    if text.startswith("~") and not path.exists():
        with contextlib.suppress(RuntimeError):  # no such user
            return path.expanduser()
    return path


def _open_stream(address: str) -> Source:
    def connect() -> VideoReader | None:
        with contextlib.suppress(UserError):
            return VideoReader(address)
        return None

    reader = VideoReader(address)
    if reader.is_file:  # every frame, in order
        return VideoSource(address, reader=reader)
    return LiveSource(address, reader, connect, "stream")


class PictureSource(Source):
    """One picture; raises UserError if it can't be read: at once if its header tells, else when iterated."""

    def __init__(self, name: str, path: Path):
        super().__init__(name, "picture")
        self.pictures = [(name, path)]
        self.readers: Iterator[Frame] | None = None
        """the frame, if another process reads it"""
        try:
            check_picture(path)
        except PictureError as error:
            raise UserError(f"{_problem(name, error)}; choose another") from error

    def __iter__(self) -> Iterator[Frame]:
        frame = next(self.readers) if self.readers else read_picture_file(*self.pictures[0])
        if frame.problem:
            raise UserError(f"{frame.problem}; choose another")
        yield frame


def read_picture_file(name: str, path: Path) -> Frame:
    """Return the frame of a picture file, named as given; an unreadable one has a problem, no image."""
    try:
        picture = load_picture(path)
    except PictureError as error:
        return Frame(None, 0, 0, name, time.monotonic(), still=True, problem=_problem(name, error))
    size = picture.width, picture.height
    return Frame(picture.image, 0, 0, name, time.monotonic(), still=True, full_size=size)


def _problem(name: str, error: PictureError) -> str:
    return f"{name}: not a picture that can be read ({error})"


def _is_still(path: Path) -> bool:
    return is_image(path) and not is_animated(path)


def _is_wanted(path: Path) -> bool:
    return is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES


class FolderSource(Source):
    """The pictures and videos of a folder and what is under it, in order, each named by its path as given."""

    def __init__(self, name: str, folder: Path, outputs: Sequence[Path] = ()):
        super().__init__(name, "folder")
        paths, left_out = list_files(folder, _is_wanted, outputs)
        if not paths:
            what = f" ({list_reasons(left_out)})" if left_out else ""
            raise UserError(
                f"no pictures or videos in {name}{what}; it should hold files like .jpg, .png or .mp4"
            )
        if left_out:
            self.news.append(f"left out of {name}: {list_reasons(left_out)}")
        self.files = [(os.path.join(name, path.relative_to(folder)), path) for path in paths]
        """each by its name as given, and its path"""
        self.readers: Iterator[Frame] | None = None
        """frames of the pictures in order, if other processes read them"""

    @property
    def pictures(self) -> list[tuple[str, Path]]:
        """The files that are pictures."""
        return [(name, path) for name, path in self.files if _is_still(path)]

    def __iter__(self) -> Iterator[Frame | None]:
        for name, path in self.files:
            if _is_still(path):
                yield next(self.readers) if self.readers else read_picture_file(name, path)
            else:
                yield from self._frames_of(name, path)

    def _frames_of(self, name: str, path: Path) -> Iterator[Frame | None]:
        try:
            with VideoSource(name, path) as video:
                self.sound, self.fps = video.sound, video.fps
                for frame in video:
                    self.start_s = video.start_s
                    yield frame
            if video.failure:
                self.news.append(video.failure)
        except UserError as error:
            yield Frame(None, 0, 0, name, time.monotonic(), problem=str(error))


class VideoSource(Source):
    """Every frame of a video file, in order, decoded ahead in a thread of its own."""

    AHEAD = 4

    def __init__(self, name: str, path: Path | None = None, reader: VideoReader | None = None):
        super().__init__(name, "video")
        self._reader = reader if reader is not None else open_video(path, name)
        self.fps = self._reader.fps
        self.sound = self._reader.address if self._reader.has_sound else None
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
        if loss := self._reader.loss(count):
            self.failure = f"{self.name} {loss}"
        if count == 0:
            raise UserError(self.failure)

    def _read_ahead(self) -> None:
        index, timestamp_ms, begin_ms = 0, -1, 0
        if self.loops:  # only then may it begin elsewhere
            self._reader.seek(DEMO_BEGIN_S)
            begin_ms = -round(DEMO_BEGIN_S * 1000)
        while not self._stopped.is_set():
            image = next(self._reader, None)
            if image is None and self.loops and index:
                self._reader.seek(0)
                begin_ms = timestamp_ms + round(1000 / self.fps)
                continue
            if image is None:
                break
            self.start_s = self._reader.start_s
            timestamp_ms = max(timestamp_ms + 1, begin_ms + round(self._reader.time_s * 1000))
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
            self._reader.close()
