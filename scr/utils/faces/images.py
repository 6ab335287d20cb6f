"""Reading and comparing pictures: one loader for every script, so that all see the same pixels.

The sole owner of Pillow, which decodes, and of cv2's import. Decoders allocate what a header claims, so a
picture's price is reckoned before its pixels are read.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import UserError
from ..folders import HEIF_SUFFIXES

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".gif", ".apng"),
}
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "GIF", "JPEG2000", "HEIF")
"""Pillow's names of what is read, whatever the suffix."""
ANIMATED_SUFFIXES = (".gif", ".png", ".apng", ".webp")
DARK_LEVEL = 64
"""Of 255. Faces found of 56 (London, KDEF) in 12%, 6% and 3% of the light: 56, 17, 0; brightened 56 each
time, labelled as in full light 52, 52, 49 times."""
DEFAULT_FRAME_MS = 100
"""Of an animation whose frames have no duration; browsers take that, too."""
MAX_READ_PIXELS = 16_000_000
"""Larger pictures are read at a half, a quarter or an eighth of their width."""
MAX_PIXELS = 200_000_000
"""More than the largest sensors of telephones have."""
MAX_BYTES = 600_000_000
"""What decoding may take; with the copies made of the result and the program itself it is under 1 GB."""
BYTES_PER_PIXEL = {"JPEG": 0, "MPO": 0, "AVIF": 10, "HEIF": 10, "WEBP": 16, "JPEG2000": 18}
"""What decoding takes where it is not Pillow's own 4, or 8 of other modes than RGB and L: measured. JPEGs are
decoded at a fraction of their size; in progressive ones the coefficients of all scans, two bytes each, wait
for the last one."""


class PictureError(Exception):
    """A picture that is not read: `reason` is one of a few, to count by; the text tells all."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A still picture: `image` (height, width, 3) uint8 BGR, upright, of a bounded size, and its full size.

    The image has at most `MAX_READ_PIXELS`. Landmarks are in image widths, so they hold for the full picture;
    boxes are given in its pixels.
    """

    image: np.ndarray
    width: int
    height: int


@functools.cache
def import_cv2():
    """Return the cv2 module, its log silent; raises UserError that names a missing system library."""
    try:
        import cv2
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        advice = "on Debian or Ubuntu run: apt-get install libgl1 libglib2.0-0"
        raise UserError(f"OpenCV can't load: {error}; {advice}") from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


@functools.cache
def _import_pillow():
    """Return Pillow's Image module: what is wrong with a picture is told by PictureError alone."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # MAX_BYTES says it
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")
    if heif_is_read():
        import pillow_heif

        pillow_heif.register_heif_opener()
    return Image


@functools.cache
def heif_is_read() -> bool:
    """Tell whether the package that reads HEIC pictures is there."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_image(path: Path) -> bool:
    """Tell by its suffix whether a file is a picture that can be read here; see also `is_animated`."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix in HEIF_SUFFIXES and heif_is_read())


def is_animated(path: Path) -> bool:
    """Tell by its content whether a GIF, PNG or WebP has several frames: such a file is a video."""
    if path.suffix.lower() not in ANIMATED_SUFFIXES:
        return False
    try:
        with _opened(path) as image:
            return getattr(image, "is_animated", False)
    except PictureError:
        return False


def read_animation(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the frames (height, width, 3) uint8 BGR of an animated picture, each with its time in ms.

    FFmpeg reads animated GIF and PNG too, but no WebP. Raises as `load_picture` does.
    """
    with _opened(path) as image:
        timestamp_ms = 0
        for index in range(image.n_frames):
            image.seek(index)
            yield np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1]), timestamp_ms
            timestamp_ms += round(image.info.get("duration") or DEFAULT_FRAME_MS)


def check_picture(path: Path | str) -> None:
    """Raise PictureError if a file is none, or should not be decoded, as far as its header tells."""
    with _opened(path):
        pass


def load_picture(path: Path | str) -> Picture:
    """Return the picture in a file, whatever its format; of an animated one the first frame.

    Raises PictureError if it can't, or should not, be read: a pipe, a device, a header that claims too much.
    """
    with _opened(path) as image:
        width, height = image.size
        part = next(part for part in (1, 2, 4, 8) if width * height <= MAX_READ_PIXELS * part**2)
        image.draft("RGB", (width // part, height // part))  # a JPEG is decoded at that size
        image.load()
        left = round(part * image.width / width)
        stored = _to_8_bit(image)
        stored = stored.reduce(left) if left > 1 else stored
        upright = _upright(stored if stored.mode == "RGB" else stored.convert("RGB"))
        if (upright.width > upright.height) != (stored.width > stored.height):
            width, height = height, width
        pixels = np.asarray(upright)[:, :, ::-1]
    return Picture(np.ascontiguousarray(pixels), width, height)


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator:
    """Open a picture with Pillow, its price checked; what goes wrong in there becomes a PictureError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PictureError("no regular file")
        if os.stat(path).st_size == 0:
            raise PictureError("unreadable", "the file is empty")
        with open(path, "rb") as file, _import_pillow().open(file, formats=FORMATS) as image:
            _check_price(image)
            yield image
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError("too large", "memory is short") from error
    except OSError as error:
        raise PictureError("unreadable", error.strerror or "no picture, or damaged") from error
    except Exception as error:  # each of Pillow's decoders has its own
        raise PictureError("unreadable", "no picture, or damaged") from error


def _check_price(image) -> None:
    pixels, shape = image.width * image.height, f"{image.width} x {image.height}"
    if pixels > MAX_PIXELS:
        most = f"at most {MAX_PIXELS // 1_000_000} megapixels are read"
        raise PictureError("too large", f"{shape} pixels; {most}")
    price = BYTES_PER_PIXEL.get(image.format, 4 if image.mode in ("RGB", "L") else 8)
    if image.info.get("progressive"):
        price = 2 * len(image.getbands())
    if price * pixels > MAX_BYTES:
        raise PictureError("too large", f"{shape} pixels in this format; save it as a plain JPEG")


def _to_8_bit(image):
    """Return an image that `reduce` takes: deep grey by its upper eight bits, palettes as colours."""
    if image.mode.startswith("I"):
        return _import_pillow().fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB") if image.mode in ("P", "1", "PA") else image


def _upright(image):
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF is no reason to refuse the pixels
        return image


def shrink(picture: np.ndarray, scale: float) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 scaled down without aliasing; never enlarged.

    Halved as often as it goes, then bilinear: ten times faster than INTER_AREA at an odd scale.
    """
    cv2 = import_cv2()
    if scale >= 1:
        return picture
    height, width = picture.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    while scale <= 0.5 and min(picture.shape[:2]) > 1:
        half = picture.shape[1] // 2, picture.shape[0] // 2
        picture, scale = cv2.resize(picture, half, interpolation=cv2.INTER_AREA), 2 * scale
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def brighten(picture: np.ndarray) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 that is too dark for the networks as if in more light.

    Its lightest part is brought to `DARK_LEVEL`; what is lighter than that comes back as it is.
    """
    cv2 = import_cv2()
    step = max(1, min(picture.shape[:2]) // 64)
    small = cv2.resize(np.ascontiguousarray(picture[::step, ::step]), (32, 32), interpolation=cv2.INTER_AREA)
    lightest = int(small.max())
    if not 0 < lightest < DARK_LEVEL:
        return picture
    return cv2.convertScaleAbs(picture, alpha=DARK_LEVEL / lightest)


def sharpness(picture_bgr: np.ndarray, width: int = 128) -> float:
    """Return the variance of the Laplacian at a common width: low for blur (Pech-Pacheco et al. 2000)."""
    cv2 = import_cv2()
    if 0 in picture_bgr.shape:
        return 0.0
    grey = cv2.cvtColor(picture_bgr, cv2.COLOR_BGR2GRAY)
    size = width, max(1, round(grey.shape[0] * width / grey.shape[1]))
    return float(cv2.Laplacian(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), cv2.CV_64F).var())
