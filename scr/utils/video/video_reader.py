"""Video files and streams -> upright frames of square pixels, each at its time. Reads by PyAV (FFmpeg)."""

import math
import os
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np

from ..config import UserError
from ..faces.images import import_cv2
from .frames import FALLBACK_FPS

CONNECT_S, READ_S = 10.0, 5.0
"""How long a stream may take to answer, and then to give its next piece."""
MAX_STRETCH = 4.0
"""Pixels that claim to be wider or higher than this are a damaged header's."""
MAX_PIXELS = 8192 * 4320
"""The largest frame that is read: 8K."""
LEAST_LOSS_S, LEAST_LOSS_FRAMES, LOSS_SHARE = 1.0, 5, 0.05
"""What may be missing at the end of a video without being called a loss: containers estimate."""
NO_VIDEO = ("tty", "bin", "xbin", "adf", "idf")
"""Formats as which FFmpeg shows text that is no video at all."""


def import_av():
    """Return PyAV's module; raises UserError if it can't load.

    OpenCV is loaded before it: both bring libraries for X11, and OpenCV's windows hang when they get PyAV's.
    """
    import_cv2()
    try:
        import av
    except ImportError as error:
        raise UserError(f"PyAV can't load: {error}; run: pip install -r requirements.txt") from error
    return av


class VideoReader:
    """Decodes one video; `read` and `release` as of a `cv2.VideoCapture`, and `time_s` of the frame read.

    Raises UserError if the file or stream can't be opened or has no video.
    """

    def __init__(self, address: str, options: dict[str, str] | None = None, name: str = ""):
        av = import_av()
        self.address, self.name = address, name or address
        self._errors = av.FFmpegError
        local = address.startswith("file:")
        try:
            self._container = av.open(
                address, options=options or {}, timeout=None if local else (CONNECT_S, READ_S)
            )
        except (av.FFmpegError, ValueError) as error:
            raise UserError(self._why_closed(error, local)) from error
        try:
            self._stream = self._find_video()
        except UserError:
            self._container.close()
            raise
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._frames = self._decode()
        self.fps = self._find_rate()
        self.has_sound = bool(self._container.streams.audio)
        self.is_file = local or bool(self._container.duration) or bool(self._stream.frames)
        self.time_s = 0.0
        self.start_s: float | None = None
        """the container's time of the first frame, which is 0 for `time_s`"""

    @classmethod
    def of_file(cls, path: Path, name: str) -> "VideoReader":
        """Return the reader of a file; `file:` allows colons in a name and keeps playlists offline."""
        return cls(f"file:{os.fspath(path)}", {"protocol_whitelist": "file"}, name)

    def _why_closed(self, error: Exception, local: bool) -> str:
        if not local:
            return f"can't open the stream {self.name}; check the address and the network"
        if isinstance(error, PermissionError):
            return f"{self.name} may not be read; check its permissions"
        return (
            f"{self.name} is not a video that can be read (empty, damaged or another format); choose another"
        )

    def _find_video(self):
        Disposition = import_av().stream.Disposition
        streams = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & Disposition.attached_pic  # the cover of a song
        ]
        if not streams or self._container.format.name in NO_VIDEO:
            raise UserError(f"{self.name} holds no video; choose another file")
        stream = max(streams, key=lambda stream: bool(stream.disposition & Disposition.default))
        if stream.codec_context is None:
            raise UserError(
                f"{self.name} is a video of a kind that is not known here; convert it: "
                "ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
        if stream.width * stream.height > MAX_PIXELS:
            raise UserError(
                f"{self.name} is {stream.width} x {stream.height}, more than 8K; scale it down first"
            )
        stream.thread_type = "AUTO"
        return stream

    def _find_rate(self) -> float:
        for rate in (self._stream.average_rate, self._stream.guessed_rate):
            if rate and 1 <= rate <= 120:  # a browser's recorder claims 1000
                return float(rate)
        return FALLBACK_FPS

    def read(self) -> tuple[bool, np.ndarray | None]:
        """Return (True, the next frame (height, width, 3) uint8 BGR), or (False, None) at the end."""
        frame = next(self._frames, None)
        if frame is None:
            return False, None
        self._note_time(frame)
        return True, self._to_upright(frame)

    def _decode(self):
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._errors:  # what the file ends in, or a cut connection
                packet = None
            try:
                yield from self._stream.decode(packet)  # None: what the decoder still holds
            except self._errors:  # a damaged packet; the next ones may be whole
                pass
            if packet is None:
                return

    def _note_time(self, frame) -> None:
        """Set `time_s`: a frame without a time stamp follows the one before."""
        if self.start_s is None:
            self.start_s = frame.time or 0.0
        elif frame.time is None:
            self.time_s += 1 / self.fps
        else:
            self.time_s = frame.time - self.start_s

    def _to_upright(self, frame) -> np.ndarray:
        width = round(frame.width * self._stretch())
        image = self._reformatter.reformat(
            frame, width, frame.height, "bgr24", interpolation="BICUBIC"
        ).to_ndarray()
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise
        if quarters:
            cv2 = import_cv2()
            turns = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
            image = cv2.rotate(image, turns[quarters - 1])
        return image

    def _stretch(self) -> float:
        """Return how much wider than high the pixels are."""
        ratio = float(self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio or 1)
        return ratio if 1 / MAX_STRETCH <= ratio <= MAX_STRETCH else 1.0

    def rewind(self) -> None:
        """Go back to the first frame."""
        self._frames.close()
        self._container.seek(0)
        self._frames = self._decode()

    def skip_to(self, seconds: float) -> None:
        """Leave out the frames before a time in seconds; only before the first is read."""
        self.start_s = float((self._stream.start_time or 0) * self._stream.time_base)
        self._container.seek(round((self.start_s + seconds) * 1e6))  # to the key frame before it
        while self.time_s < seconds - 1.5 / self.fps and (frame := next(self._frames, None)) is not None:
            self._note_time(frame)

    def loss(self, count: int) -> str:
        """Return how much of the video was read, `count` frames, if its header promised more; else ""."""
        if expected := self._stream.frames:
            lost = expected - count > max(LEAST_LOSS_FRAMES, LOSS_SHARE * expected)
            return f"{count} of {expected} frames" if lost else ""
        if self._stream.duration:
            seconds = float(self._stream.duration * self._stream.time_base)
        else:
            seconds = (self._container.duration or 0) / 1e6
        lost = seconds - self.time_s > max(LEAST_LOSS_S, LOSS_SHARE * seconds)
        return f"{self.time_s:.1f} of {seconds:.1f} s" if math.isfinite(seconds) and lost else ""

    def release(self) -> None:
        """Close the file or connection."""
        self._frames.close()
        self._container.close()


def remember_proxy(address: str) -> dict[str, str]:
    """Return the options that keep FFmpeg to the user's proxy, as the environment names it now.

    MediaPipe's reports are stopped by changing these variables, so a stream that is opened again must not ask
    them. FFmpeg asks `http_proxy` and `no_proxy` only; an empty proxy is none.
    """
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        return {}
    host = urllib.parse.urlsplit(address).hostname or ""
    passed_by = urllib.request.proxy_bypass_environment(host, {"no": os.environ.get("no_proxy", "")})
    return {"http_proxy": "" if passed_by else os.environ.get("http_proxy", "")}
