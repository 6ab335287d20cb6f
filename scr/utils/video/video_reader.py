"""Video files and streams -> upright frames of square pixels, each at its time. Reads by PyAV (FFmpeg)."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..config import UserError
from ..faces.images import PictureError, import_cv2, is_animated, read_animation
from .frames import FALLBACK_FPS

CONNECT_S, READ_S = 10.0, 5.0
"""How long a stream may take to answer, and then to give its next piece."""
MAX_STRETCH = 4.0
"""Pixels that claim to be wider or higher than this are a damaged header's."""
MAX_PIXELS = 8192 * 4320
"""The largest frame that is read: 8K."""
LEAST_LOSS_S, LEAST_LOSS_FRAMES, LOSS_SHARE = 1.0, 5, 0.05
"""What may be missing of a video without being called a loss: containers estimate."""
NO_VIDEO = ("tty", "bin", "xbin", "adf", "idf")
"""Formats as which FFmpeg shows text that is no video at all."""
BACKWARD_S, FORWARD_S = 0.5, 10.0
"""Time stamps that jump so far are of a clock that begins anew."""
TIMES_MAY_JUMP = 0x200
"""FFmpeg's flag AVFMT_TS_DISCONT: formats, MPEG's for one, in which a jump forward is no pause."""


def import_av():
    """Return PyAV's module.

    OpenCV is loaded before it: both bring libraries for X11, and OpenCV's windows hang when they get PyAV's.
    """
    import_cv2()
    import av

    return av


class Clock:
    """Turns a container's time stamps into seconds that go on where its own clock begins anew.

    It does so at the joint of recordings that were appended to each other, and on DVDs.
    """

    def __init__(self, container, start_s: float):
        self.seconds: float | None = None
        """the last time given; None before the first"""
        self._start_s = start_s
        self._jumps_forward = bool(container.format.flags & TIMES_MAY_JUMP)

    def advance(self, time: float | None, step_s: float) -> float:
        """Return the time of the next piece; it follows the last by `step_s` if its time stamp can't be."""
        following = 0.0 if self.seconds is None else self.seconds + step_s
        now = following if time is None else time - self._start_s
        if self.seconds is not None:
            ahead = now - self.seconds
            if ahead < -BACKWARD_S or (self._jumps_forward and ahead > FORWARD_S):
                self._start_s += now - following
                now = following
        self.seconds = now
        return now


class VideoReader(Iterator):
    """Decodes one video: `next` gives its upright frames (height, width, 3) uint8 BGR.

    Raises UserError if the file or stream can't be opened or has no video.
    """

    def __init__(self, address: str, options: dict[str, str] | None = None, name: str = ""):
        av = import_av()
        self.address, self.name = address, name or address
        self._errors = av.FFmpegError
        self._local = address.startswith("file:")
        try:
            self._container = av.open(
                address, options=options or {}, timeout=None if self._local else (CONNECT_S, READ_S)
            )
        except (av.FFmpegError, ValueError) as error:
            raise UserError(self._why_closed(error)) from error
        try:
            self._stream = self._find_video()
        except UserError:
            self._container.close()
            raise
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._packets = self._damaged = 0
        self._frames = self._decode()
        self.fps = self._find_rate()
        self.has_sound = bool(self._container.streams.audio)
        self.is_file = self._local or bool(self._container.duration) or bool(self._stream.frames)
        self.start_s: float | None = None
        """the container's time that counts as 0, which is that of the first frame"""
        self._clock: Clock | None = None

    def _why_closed(self, error: Exception) -> str:
        if not self._local:
            return f"can't open the stream {self.name}; check the address and the network"
        if isinstance(error, PermissionError):
            return f"{self.name} may not be read; check its permissions"
        return f"{self.name} is not a video that can be read (empty, damaged, another format); choose another"

    def _find_video(self):
        attached = import_av().stream.Disposition.attached_pic  # the cover of a song
        streams = [stream for stream in self._container.streams.video if not stream.disposition & attached]
        if not streams or self._container.format.name in NO_VIDEO:
            raise UserError(f"{self.name} holds no video; choose another file")
        best = self._container.streams.best("video")  # by what it has seen of each
        several = [stream for stream in streams if stream.frames != 1]  # the other is a thumbnail
        stream = best if best in (several or streams) else (several or streams)[0]
        if stream.codec_context is None:
            convert = "ffmpeg -i IN -c:v libx264 OUT.mp4"
            raise UserError(f"{self.name} is a video of a kind that is not known here; convert it: {convert}")
        if stream.width * stream.height > MAX_PIXELS:
            size = f"{stream.width} x {stream.height}"
            raise UserError(f"{self.name} is {size}, more than 8K; scale it down first")
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # a frame may be larger than the first
        return stream

    def _find_rate(self) -> float:
        for rate in (self._stream.average_rate, self._stream.guessed_rate):
            if rate and 1 <= rate <= 120:  # a browser's recorder claims 1000
                return float(rate)
        return FALLBACK_FPS

    @property
    def time_s(self) -> float:
        """The time of the newest frame, in seconds from the first."""
        return (self._clock and self._clock.seconds) or 0.0

    def __next__(self) -> np.ndarray:
        frame = next(self._frames)
        if self._clock is None:
            self.start_s = frame.time or 0.0
            self._clock = Clock(self._container, self.start_s)
        self._clock.advance(frame.time, 1 / self.fps)
        return self._to_upright(frame)

    def _decode(self):
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._errors:  # what the file ends in, or a cut connection
                packet = None
            self._packets += bool(packet and packet.size)
            try:
                yield from self._stream.decode(packet)  # None: what the decoder still holds
            except self._errors:  # a damaged packet; the next ones may be whole
                self._damaged += 1
            if packet is None:
                return

    def _to_upright(self, frame) -> np.ndarray:
        ratio = float(self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio or 1)
        width = round(frame.width * ratio) if 1 / MAX_STRETCH <= ratio <= MAX_STRETCH else frame.width
        image = self._reformatter.reformat(frame, width, frame.height, "bgr24", interpolation="BICUBIC")
        image = image.to_ndarray()
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise
        if quarters:
            cv2 = import_cv2()
            turns = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
            image = cv2.rotate(image, turns[quarters - 1])
        return image

    def loss(self, count: int) -> str:
        """Return what is wrong with a video of which `count` frames could be read, or ""."""
        if count == 0 and self._local:
            return "has no frame that can be read; it is damaged, choose another"
        if count == 0:
            return "can't be read from this server, which may not give parts of a file; download it first"
        seconds = self._duration_s()
        if seconds - self.time_s > max(LEAST_LOSS_S, LOSS_SHARE * seconds):
            return f"ends early: {self.time_s:.1f} of {seconds:.1f} s could be read (cut off?)"
        lost = self._packets - count
        if self._damaged and lost > max(LEAST_LOSS_FRAMES, LOSS_SHARE * self._packets):
            return f"is damaged: {lost} of {self._packets} frames could not be read"
        return ""

    def _duration_s(self) -> float:
        """Return how long the pictures should last, 0 if that is not known."""
        stream, container = self._stream, self._container
        if container.format.flags & TIMES_MAY_JUMP:
            return 0.0  # estimated from the first and the last time stamp
        counted = stream.frames / stream.average_rate if stream.average_rate else 0  # of an AVI cut off
        if stream.duration:
            return float(max(stream.duration * stream.time_base, counted))
        if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):  # Matroska
            return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
        return 0.0 if self.has_sound else (container.duration or 0) / 1e6  # the sound may last longer

    def close(self) -> None:
        """Close the file or connection."""
        self._frames.close()
        self._container.close()


class AnimationReader(Iterator):
    """Reads an animated GIF, PNG or WebP as `VideoReader` reads a video; FFmpeg reads no animated WebP."""

    fps, has_sound, start_s = 10.0, False, 0.0

    def __init__(self, path: Path):
        self.time_s = 0.0
        self._frames = read_animation(path)
        self._problem = ""

    def __next__(self) -> np.ndarray:
        try:
            image, time_ms = next(self._frames)
        except PictureError as error:
            self._problem = str(error)
            raise StopIteration from error
        self.time_s = time_ms / 1000
        return image

    def loss(self, count: int) -> str:
        """Return what is wrong with an animation of which `count` frames could be read, or ""."""
        return f"is damaged behind frame {count} ({self._problem})" if self._problem else ""

    def close(self) -> None:
        """Close the file."""
        self._frames.close()


def open_video(path: Path, name: str) -> VideoReader | AnimationReader:
    """Return the reader of a video file, an animated picture, or numbered pictures; raises UserError."""
    if is_animated(path):
        return AnimationReader(path)
    options = {"protocol_whitelist": "file"}  # playlists stay offline
    if (first := first_number(path)) is not None:
        options["start_number"] = str(first)
    return VideoReader(f"file:{os.fspath(path)}", options, name)  # file: for colons in a name


def first_number(path: Path) -> int | None:
    """Return the lowest number of the pictures that a name like `img%03d.png` stands for, None if of none."""
    pattern = re.fullmatch(r"([^%]*)%0?\d*d([^%]*)", path.name)
    if not pattern or path.exists() or not path.parent.is_dir():
        return None
    numbered = re.compile(re.escape(pattern[1]) + r"(\d+)" + re.escape(pattern[2]))
    names = (numbered.fullmatch(name) for name in os.listdir(path.parent))
    return min((int(name[1]) for name in names if name), default=None)
