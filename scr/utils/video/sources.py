"""Where frames come from: cameras, streams, video files, pictures, folders of both.

with open_source("0") as source:
    for frame in source:
        if frame is None: ...    # nothing new yet: keep the window alive; `source.message` says why
        else: ...                # frame.image (height, width, 3) uint8 BGR
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ..config import ASSETS, UserError, relative
from ..faces.images import PictureError, check_picture, is_animated, is_image, load_picture
from ..folders import HEIF_SUFFIXES, list_files, list_reasons
from .camera import CameraSettings, open_camera
from .frames import Frame, InputFile, Source, look_ahead
from .live_source import LiveSource
from .video_reader import VideoReader, first_number, open_video

DEMO_CLIP = ASSETS / "demo.mp4"
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .asf .flv .f4v .ts .mts .m2ts .vob .3gp .3g2 .ogv"
    " .mxf .dv .mjpeg .mjpg .y4m .h264 .hevc".split()
)


def open_source(
    text: str, settings: CameraSettings | None = None, demo: Path | None = None, outputs: Sequence[Path] = ()
) -> Source:
    """Return the source that `text` names: camera number, video, picture, folder of both, or stream address.

    A file or folder whose name is a number is meant if it is there, but for 0. `outputs` are left out of a
    folder. Without such a camera, `demo` is the clip to play. Raises UserError if nothing can be opened.
    """
    if text.startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    if "://" in text:
        return _open_stream(text)
    camera = _camera_of(text)
    if camera is None:
        return _open_path(text, outputs)
    settings = settings or CameraSettings()
    capture, problem = open_camera(camera, settings)
    if capture is not None:
        return LiveSource(text, capture, lambda: open_camera(camera, settings)[0], "camera")
    if demo is None:
        raise UserError(f"no camera {text} ({problem}); plug one in, or name another source: --source FILE")
    source = ClipSource(relative(demo), demo)
    source.news.append(f"no camera {text} ({problem}): playing {relative(demo)}")
    return source


def names_file(text: str) -> bool:
    """Tell whether `text` means a file or a folder, there or not; else it means a camera or a stream."""
    return "://" not in text and _camera_of(text) is None


def _camera_of(text: str) -> int | str | None:
    if text.isdecimal() and (text == "0" or not os.path.exists(text)):
        return int(text)
    return text if text.startswith(("/dev/video", "/dev/v4l")) else None


def _open_path(text: str, outputs: Sequence[Path]) -> Source:
    path = Path(text)
    if text.startswith("~") and not path.exists():
        path = Path(os.path.expanduser(text))
    if path.is_dir():
        return FolderSource(text, path, outputs)
    if first_number(path) is not None:
        source = VideoSource(text, path)
        source.files = [InputFile(text, one, True) for one in path.parent.glob(f"*{path.suffix}")]
        return source
    if not path.is_file():
        problem = "neither a file nor a folder:" if os.path.lexists(path) else "no file or folder"
        raise UserError(f"{problem} {text}; check --source")
    if _is_picture(path):
        return PictureSource(text, path)
    if path.suffix.lower() in VIDEO_SUFFIXES or is_image(path):
        return VideoSource(text, path)
    if path.suffix.lower() in HEIF_SUFFIXES:
        raise UserError(f"{text}: to read {path.suffix} pictures, run: pip install pillow-heif")
    suffix = path.suffix or "none"
    raise UserError(
        f"{text} is neither a video nor a picture by its suffix ({suffix}); convert it to .mp4 or .png"
    )


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
        self.files = [InputFile(name, path, True)]
        try:
            check_picture(path)
        except PictureError as error:
            raise UserError(f"{_problem(name, error)}; choose another") from error

    def __iter__(self) -> Iterator[Frame]:
        yield read_picture_file(*self.files[0][:2])


def read_picture_file(name: str, path: Path) -> Frame:
    """Return the frame of a picture file, named as given; raises UserError if it can't be read."""
    try:
        picture = load_picture(path)
    except PictureError as error:
        raise UserError(_problem(name, error)) from error
    size = picture.width, picture.height
    return Frame(picture.image, 0, 0, name, time.monotonic(), still=True, full_size=size)


def _problem(name: str, error: PictureError) -> str:
    return f"{name}: not a picture that can be read ({error})"


def _is_picture(path: Path) -> bool:
    """Tell a picture from a video; an animated GIF, PNG or WebP is one by its content."""
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
            raise UserError(f"no pictures or videos in {name}{what}; it needs files like .jpg, .png or .mp4")
        if left_out:
            self.news.append(f"left out of {name}: {list_reasons(left_out)}")
        names = [os.path.join(name, path.relative_to(folder)) for path in paths]
        self.files = [InputFile(*file, _is_picture(file[1])) for file in zip(names, paths)]

    def __iter__(self) -> Iterator[Frame | None]:
        for file in self.files:
            try:
                with PictureSource(*file[:2]) if file.is_picture else VideoSource(*file[:2]) as source:
                    yield from source
                if source.failure:
                    self.news.append(source.failure)
            except UserError as error:
                self.news.append(str(error))


class VideoSource(Source):
    """Every frame of a video file, in order, decoded ahead; raises UserError if no frame can be read."""

    AHEAD = 4

    def __init__(self, name: str, path: Path | None = None, reader: VideoReader | None = None):
        super().__init__(name, "video")
        self.files = [InputFile(name, path, False)] if path else []
        self._reader = reader if reader is not None else open_video(path, name)
        self.fps = self._reader.fps
        self.sound = self._reader.address if self._reader.has_sound else None
        self._first = next(self._reader, None)
        if self._first is None:
            self._reader.close()
            raise UserError(f"{name} {self._reader.loss(0)}")
        self.start_s = self._reader.start_s
        self._frames = look_ahead(self._decode(), lambda frame: frame, self.AHEAD)

    def __iter__(self) -> Iterator[Frame | None]:
        return self._frames

    def _decode(self) -> Iterator[Frame]:
        index, timestamp_ms, image = 0, -1, self._first
        while image is not None:
            timestamp_ms = max(timestamp_ms + 1, round(self._reader.time_s * 1000))
            yield Frame(image, index, timestamp_ms, self.name, time.monotonic())
            index, image = index + 1, next(self._reader, None)
        if loss := self._reader.loss(index):
            self.failure = f"{self.name} {loss}"

    def close(self) -> None:
        self._frames.close()  # ends its thread
        self._reader.close()


class ClipSource(Source):
    """The bundled clip, played for want of a camera: once, or again and again if it `loops`."""

    def __init__(self, name: str, path: Path):
        super().__init__(name, "video")
        self._path = path

    def __iter__(self) -> Iterator[Frame | None]:
        while True:
            with VideoSource(self.name, self._path) as clip:
                yield from clip
            if not self.loops:
                return
