"""Reading and comparing pictures: one loader for every script, so that all see the same pixels."""

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.config import UserError, native_log_silenced
from utils.faces.headers import Header, PictureError, read_header

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm")
}
MAX_READ_PIXELS = 16_000_000
"""Larger pictures are read at a half, a quarter or an eighth of their width: faces are read at some hundred pixels."""


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
    """Tell by its suffix whether a file is a picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: Path, more: frozenset[str] = frozenset()) -> list[Path]:
    """Return the pictures anywhere under `folder`, in an order that does not depend on the file system.

    `more`: suffixes of other files that are wanted too (videos).
    """
    suffixes = IMAGE_SUFFIXES | more
    return sorted(
        (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()),
        key=lambda path: path.relative_to(folder).parts,
    )


@dataclass(frozen=True)
class Picture:
    """A still picture: `image` (height, width, 3) uint8 BGR, upright, of at most `MAX_READ_PIXELS`; and its full size in pixels.

    Landmarks are in image widths, so they hold for the full picture as they are; boxes are given in its pixels.
    """

    image: np.ndarray
    width: int
    height: int


def load_picture(path: Path | str) -> Picture:
    """Return the picture in a file, whatever its format; raises PictureError if it can't, or should not, be read.

    Pipes and devices are refused, and what a header claims is checked before anything is decoded.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PictureError("no regular file")
        with open(path, "rb") as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
            with native_log_silenced():
                image = _decode(file, header)
    except OSError as error:
        raise PictureError("unreadable", error.strerror or str(error)) from error
    except MemoryError as error:
        raise PictureError("too large", "memory is short") from error
    if image is None:
        raise PictureError("unreadable", "no picture, or damaged")
    image = np.ascontiguousarray(_turn(image, header.orientation))
    turned = header.orientation >= 5
    return Picture(image, *((header.height, header.width) if turned else (header.width, header.height)))


def _decode(file: BinaryIO, header: Header) -> np.ndarray | None:
    """Return the pixels as they are stored, at the fraction of their size that `MAX_READ_PIXELS` allows."""
    cv2 = import_cv2()
    part = next(part for part in (1, 2, 4, 8) if header.width * header.height <= MAX_READ_PIXELS * part**2)
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    try:
        if part == 1 or header.format in ("JPEG", "MPO"):
            file.seek(0)
            data = np.frombuffer(file.read(), np.uint8)
            return cv2.imdecode(data, flags[part] | cv2.IMREAD_IGNORE_ORIENTATION)
        # Decoded into an array of ours: OpenCV would make one more, as large. Only a file can be, by a name that is always ASCII.
        name = f"/proc/self/fd/{file.fileno()}" if sys.platform == "linux" else file.name
        whole = np.empty((header.height, header.width, 3), np.uint8)
        whole = cv2.imread(name, whole, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if whole is None:
        return None
    size = -(-header.width // part), -(-header.height // part)
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA)


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels upright (EXIF 2.3, tag Orientation)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def shrink(picture: np.ndarray, scale: float) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 scaled down without aliasing; as it is for a scale of 1 or more.

    Halved as often as it goes, then bilinear: ten times faster than cv2's INTER_AREA at a scale that is no fraction.
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
    """Return the variance of the Laplacian of a picture at a common width: low for blur (Pech-Pacheco et al. 2000)."""
    cv2 = import_cv2()
    if 0 in picture_bgr.shape:
        return 0.0
    grey = cv2.cvtColor(picture_bgr, cv2.COLOR_BGR2GRAY)
    height = max(1, round(grey.shape[0] * width / grey.shape[1]))
    return float(
        cv2.Laplacian(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), cv2.CV_64F).var()
    )
