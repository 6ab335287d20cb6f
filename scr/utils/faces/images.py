"""Reading and comparing pictures: one loader for every script, so that all see the same pixels."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..config import UserError
from ..folders import HEIF_SUFFIXES
from .headers import Header, PictureError, decode_with_pillow, heif_is_read, read_header, without_refinements

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm")
}
MAX_READ_PIXELS = 16_000_000
"""Larger pictures are read at a half, a quarter or an eighth of their width."""


def import_cv2():
    """Return the cv2 module; raises UserError that names a missing system library."""
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"OpenCV can't load: {error}; on Debian or Ubuntu run: "
            "apt-get install libegl1 libgles2 libgl1 libglib2.0-0"
        ) from error
    return cv2


def is_image(path: Path) -> bool:
    """Tell by its suffix whether a file is a picture that can be read here."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix in HEIF_SUFFIXES and heif_is_read())


@dataclass(frozen=True)
class Picture:
    """A still picture: `image` (height, width, 3) uint8 BGR, upright, of a bounded size, and its full size.

    The image has at most `MAX_READ_PIXELS`. Landmarks are in image widths, so they hold for the full picture;
    boxes are given in its pixels.
    """

    image: np.ndarray
    width: int
    height: int


def load_picture(path: Path | str) -> Picture:
    """Return the picture in a file, whatever its format.

    Pipes and devices are refused, and what a header claims is checked before anything is decoded. Raises
    PictureError if it can't, or should not, be read.
    """
    with _opened(path) as (file, header):
        image = _decode(file, header)
    if image is None:
        raise PictureError("unreadable", "no picture, or damaged")
    return Picture(np.ascontiguousarray(image), header.width, header.height)


def check_picture(path: Path | str) -> None:
    """Raise PictureError if a file is none, or should not be decoded, as far as its header tells."""
    with _opened(path):
        pass


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[tuple[BinaryIO, Header]]:
    """Open a picture file and read its header; what goes wrong in there becomes a PictureError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PictureError("no regular file")
        with open(path, "rb") as file:
            yield file, read_header(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise PictureError("unreadable", error.strerror or str(error)) from error
    except MemoryError as error:
        raise PictureError("too large", "memory is short") from error


def _decode(file: BinaryIO, header: Header) -> np.ndarray | None:
    """Return the upright pixels, at the fraction of their size that `MAX_READ_PIXELS` allows."""
    cv2 = import_cv2()
    part = next(part for part in (1, 2, 4, 8) if header.width * header.height <= MAX_READ_PIXELS * part**2)
    jpeg, tiff = header.format in ("JPEG", "MPO"), header.format == "TIFF"
    flags = cv2.IMREAD_COLOR if tiff else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said here, once
    try:
        if header.by_pillow:
            image = decode_with_pillow(file, part)
        elif jpeg:
            data = _read(file) if part < 4 else without_refinements(_read(file))
            image = cv2.imdecode(
                np.frombuffer(data, np.uint8), flags | (0, 0, *_reduced_flags(cv2))[part.bit_length()]
            )
        elif part == 1 or (tiff and header.orientation >= 5):
            image = _shrink_by(cv2.imdecode(np.frombuffer(_read(file), np.uint8), flags), part)
        else:
            # Into an array of ours, else OpenCV makes one more; by the open file, since names may be odd.
            name = f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else file.name
            size = (header.height, header.width) if header.orientation < 5 else (header.width, header.height)
            image = _shrink_by(cv2.imread(name, np.empty((*size, 3), np.uint8), flags), part)
    except cv2.error:
        return None
    return _turn(image, 1 if tiff else header.orientation)  # OpenCV's TIFF decoder turns by itself


def _read(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _reduced_flags(cv2) -> tuple[int, int, int]:
    return cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_8


def _shrink_by(image: np.ndarray | None, part: int) -> np.ndarray | None:
    """Return a picture at a whole fraction of its size, rounded up, as reduced JPEGs come."""
    if image is None or part == 1:
        return image
    size = -(-image.shape[1] // part), -(-image.shape[0] // part)
    return import_cv2().resize(image, size, interpolation=import_cv2().INTER_AREA)


def _turn(image: np.ndarray | None, orientation: int) -> np.ndarray | None:
    """Return stored pixels upright (EXIF 2.3, tag Orientation)."""
    if image is None:
        return None
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
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
    while scale <= 0.5:
        picture, scale = (
            cv2.resize(picture, (picture.shape[1] // 2, picture.shape[0] // 2), interpolation=cv2.INTER_AREA),
            2 * scale,
        )
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def perceptual_hash(frame_bgr: np.ndarray) -> int:
    """Return a 64-bit DCT hash of a picture: nearly the same picture gives nearly the same bits.

    The 8 x 8 lowest frequencies of the 32 x 32 grey picture, compared with their median (pHash, Zauner 2010).
    """
    cv2 = import_cv2()
    grey = cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int(np.packbits(bits).view(">u8")[0])


def sharpness(picture_bgr: np.ndarray, width: int = 128) -> float:
    """Return the variance of the Laplacian at a common width: low for blur (Pech-Pacheco et al. 2000)."""
    cv2 = import_cv2()
    if 0 in picture_bgr.shape:
        return 0.0
    grey = cv2.cvtColor(picture_bgr, cv2.COLOR_BGR2GRAY)
    height = max(1, round(grey.shape[0] * width / grey.shape[1]))
    return float(
        cv2.Laplacian(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), cv2.CV_64F).var()
    )
