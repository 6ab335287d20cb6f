"""Where frames go: annotated videos, by PyAV (FFmpeg), and annotated pictures."""

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..config import UserError, note
from ..faces.images import import_cv2
from ..files import atomic_path
from .frames import FALLBACK_FPS
from .video_reader import Clock, import_av


@dataclass(frozen=True)
class Codec:
    """How pictures and sound are written into a kind of file; sound in one of `kept` is copied as it is."""

    video: str
    pixels: str
    options: dict[str, str]
    sound: str
    kept: frozenset[str]


_X264 = {"preset": "veryfast", "crf": "20", "bf": "0"}
_H264 = Codec("libx264", "yuv420p", _X264, "aac", frozenset({"aac"}))
_VP9 = {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "30", "b": "0"}
CODECS = {
    ".mp4": _H264,
    ".m4v": _H264,
    ".mov": _H264,
    ".mkv": Codec("libx264", "yuv420p", _X264, "aac", frozenset("aac mp3 opus vorbis flac ac3 eac3".split())),
    ".webm": Codec("libvpx-vp9", "yuv420p", _VP9, "libopus", frozenset({"opus", "vorbis"})),
    ".avi": Codec("mjpeg", "yuvj420p", {"q": "4"}, "libmp3lame", frozenset({"mp3"})),
}
"""By suffix: what browsers, phones and old players expect of each."""
BT601 = 6
"""FFmpeg's number of the matrix between RGB and YUV that OpenCV uses, whatever the size."""
CLOCK = Fraction(1, 1000)
"""Time stamps are written as they are, in milliseconds; an AVI counts frames instead."""


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


class VideoRecorder(contextlib.ExitStack):
    """Writes frames, each at its time, and the sound that belongs to them; a context manager.

    The file is renamed into place when the block ends well. `fps` is for formats without time stamps. Raises
    UserError if the suffix names no format or the disk refuses.
    """

    def __init__(self, path: Path, fps: float = FALLBACK_FPS, sound: "Sound | None" = None):
        if path.suffix.lower() not in CODECS:
            raise UserError(f"{path} is not a video's name; end it in {' or '.join(CODECS)}")
        super().__init__()
        self.path, self._sound = path, sound
        self._codec = CODECS[path.suffix.lower()]
        self._rate = Fraction(min(max(fps, 5.0), 60.0)).limit_denominator(1001)
        self._clock = 1 / self._rate if path.suffix.lower() == ".avi" else CLOCK
        self._container = None
        self._last = -1

    def write(self, image: np.ndarray, timestamp_ms: int) -> None:
        """Add a picture (height, width, 3) uint8 BGR; one of another size than the first is fitted in."""
        av = import_av()
        if self._container is None:
            self._open(image)
        cv2 = import_cv2()
        # A third of the time that FFmpeg's own conversion takes, and nearer to the colours.
        planes = cv2.cvtColor(_fit(image, self._size), cv2.COLOR_BGR2YUV_I420)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        self._last = max(self._last + 1, round(timestamp_ms / 1000 / self._clock))
        frame.pts, frame.time_base = self._last, self._clock
        self._container.mux(self._stream.encode(frame))
        if self._sound:
            self._sound.write_until(timestamp_ms / 1000)

    def _open(self, image: np.ndarray) -> None:
        av = import_av()
        partial = self.enter_context(atomic_path(self.path))
        options = {"movflags": "faststart"} if self._codec == _H264 else {}
        self._container = av.open(f"file:{partial}", "w", container_options=options)
        self.enter_context(self._completed())
        self._size = (image.shape[1] + image.shape[1] % 2, image.shape[0] + image.shape[0] % 2)
        options = dict(self._codec.options)
        self._stream = self._container.add_stream(self._codec.video, rate=self._rate, options=options)
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = self._codec.pixels
        context = self._stream.codec_context
        context.time_base, context.colorspace = self._clock, BT601
        if self._sound:
            self._sound.open(self._container, self._codec)

    @contextlib.contextmanager
    def _completed(self):
        """Write what the encoders still hold when the block ends well, and close the file in any case."""
        try:
            yield
            self._container.mux(self._stream.encode(None))
            if self._sound:
                self._sound.write_until(float((self._last + 1) * self._clock), last=True)
        finally:
            if self._sound:
                self._sound.close()
            self._container.close()


class Sound:
    """The sound of a file or address: copied or encoded anew into a video, as far as its pictures have come.

    `start_s` says where on the source's clock the first picture lies. What can't be read or written ends the
    sound with a note, never the video.
    """

    def __init__(self, address: str, start_s: float):
        self.address, self._start_s = address, start_s
        self._source = None

    def open(self, container, codec: Codec) -> None:
        """Add a stream of sound to a container that is not yet begun."""
        av = import_av()
        self._container = container
        try:
            self._source = av.open(self.address)
            stream = self._source.streams.audio[0]
            self._clock = Clock(self._source, self._start_s)
            self._copied = stream.codec_context.name in codec.kept
            self._pieces = self._source.demux(stream) if self._copied else self._source.decode(stream)
            self._step()
            if self._copied:
                self._stream = container.add_stream_from_template(stream)
            else:
                rate = 48000 if codec.sound == "libopus" else min(stream.rate, 48000)
                layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
                self._stream = container.add_stream(codec.sound, rate=rate, layout=layout)
        except (av.FFmpegError, IndexError, AttributeError, ValueError) as error:
            self._give_up(error)

    def write_until(self, seconds: float, last: bool = False) -> None:
        """Write what is heard before a time in seconds since the first picture; `last`: and no more."""
        av = import_av()
        if self._source is None:
            return
        try:
            while self._next is not None and self._clock.seconds < seconds:
                if self._clock.seconds >= 0:
                    self._write(self._next)
                self._step()
            if last and not self._copied:
                self._container.mux(self._stream.encode(None))
        except (av.FFmpegError, ValueError) as error:
            self._give_up(error)

    def _step(self) -> None:
        """Read the next packet or frame and its time."""
        self._next = piece = next(self._pieces, None)
        if piece is None or piece.pts is None:  # the last packet has none
            self._next = None
        else:
            unit = piece.time_base
            self._clock.advance(float(piece.pts * unit), float((piece.duration or 0) * unit))

    def _write(self, piece) -> None:
        piece.pts = round(self._clock.seconds / piece.time_base)
        if self._copied:
            piece.dts = piece.pts
            piece.stream = self._stream
            self._container.mux(piece)
        else:
            self._container.mux(self._stream.encode(piece))

    def _give_up(self, error: Exception) -> None:
        note(f"the sound of {self.address.removeprefix('file:')} is not carried over: {error}")
        self.close()

    def close(self) -> None:
        """Close the source."""
        if self._source is not None:
            self._source.close()
            self._source = None


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the picture scaled into `size` (width, height) with black bars."""
    width, height = size
    if image.shape[:2] == (height, width):
        return image
    cv2 = import_cv2()
    scale = min(width / image.shape[1], height / image.shape[0])
    if scale > 1.05 or scale < 1:  # a side made even is no reason to blur
        small = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = cv2.resize(image, small)
    down, right = height - image.shape[0], width - image.shape[1]
    return cv2.copyMakeBorder(
        image, down // 2, down - down // 2, right // 2, right - right // 2, cv2.BORDER_CONSTANT
    )
