"""What a picture file says of itself, read before anything is decoded. The sole owner of Pillow.

Decoders allocate what a header claims: a PNG of 47 KB took 4.1 GB. So size, turn and price come from here,
and what is too dear or contradicts itself is refused by name.
"""

import contextlib
import functools
import logging
import struct
import warnings
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

MAX_PIXELS = 200_000_000
"""More than the largest sensors of telephones have; a picture of this size is read within 1 GB."""
MAX_BYTES = 900_000_000
"""What decoding may take, beside the program itself."""
DEFLATE_RATIO = 1032
"""Deflate can't make less of more (RFC 1951: 258 bytes by two bits)."""
PILLOW_DECODES = ("AVIF", "HEIF")
"""OpenCV takes twice the memory and time for the one, and reads the other not at all."""
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "GIF", "JPEG2000", "HEIF")
BYTES_PER_PIXEL = {"AVIF": 10, "HEIF": 10, "JPEG2000": 16}
"""What decoding takes where it is more than three: measured."""
RAW_TIFF_BYTES = 4
"""What each pixel of an uncompressed TIFF takes in Pillow; in OpenCV up to nine (file, strip and picture)."""
_SCAN, _END, _WITHIN_SCAN = 0xDA, b"\xff\xd9", {b"\0", *(bytes((0xD0 + number,)) for number in range(8))}
"""Markers of JPEG: start of a scan, end of the picture, and what may follow 0xFF within a scan."""
_ORIENTATION, _SAMPLE_BITS, _STRIP_ROWS, _TILE_WIDTH, _TILE_HEIGHT = 274, 258, 278, 322, 323
"""Tags of EXIF and TIFF."""


class PictureError(Exception):
    """A picture that is not read: `reason` is one of a few, to count by; the text tells all."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """Format by Pillow's name, and what the picture is: `width` and `height` upright, in pixels.

    `orientation` (EXIF, 1 to 8) is what is to be done to the stored pixels. `by_pillow`: Pillow decodes it
    for less than OpenCV, or alone.
    """

    format: str
    width: int
    height: int
    orientation: int
    by_pillow: bool = False


@functools.cache
def heif_is_read() -> bool:
    """Tell whether the package that reads HEIC pictures is there; it is made known to Pillow then."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def decode_with_pillow(file: BinaryIO, part: int) -> np.ndarray | None:
    """Return the stored pixels (height, width, 3) uint8 BGR, reduced by a whole `part`; None if damaged."""
    try:
        with _open(file) as image:
            image.load()
            return np.ascontiguousarray(np.asarray(image.reduce(part).convert("RGB"))[:, :, ::-1])
    except Exception:  # each of Pillow's decoders has its own
        return None


def read_header(file: BinaryIO, size: int) -> Header:
    """Return the header of a picture file of `size` bytes.

    Raises PictureError if it is none, or must not be decoded.
    """
    if size == 0:
        raise PictureError("unreadable", "the file is empty")
    try:
        with _open(file) as image:
            header, price = _header_of(image), _price(image, size)
            if price > MAX_BYTES and _is_raw_tiff(image):
                header, price = replace(header, by_pillow=True), RAW_TIFF_BYTES * image.width * image.height
    except Exception as error:  # each of Pillow's parsers has its own
        raise PictureError("unreadable", "no picture, or damaged") from error
    _check(header, price, file, size)
    return header


@contextlib.contextmanager
def _open(file: BinaryIO):
    """Open a picture with Pillow, which says nothing of its own about damage; its pixels are not read yet."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the limit here is an answer, not a warning
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    file.seek(0)
    if file.read(12)[4:8] == b"ftyp":  # AVIF or HEIC
        heif_is_read()
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=FORMATS) as image:
            yield image


def _header_of(image) -> Header:
    from PIL import Image

    if image.format == "TIFF":  # Pillow has turned the size already
        return Header("TIFF", *image.size, image.tag_v2.get(_ORIENTATION, 1))
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is no reason to refuse the pixels
        orientation = 1
    if orientation not in range(1, 9):
        orientation = 1
    size = image.size[::-1] if orientation >= 5 else image.size
    return Header(image.format, *size, orientation, by_pillow=image.format in PILLOW_DECODES)


def _check(header: Header, price: int, file: BinaryIO, size: int) -> None:
    pixels, shape = header.width * header.height, f"{header.width} x {header.height}"
    if pixels > MAX_PIXELS:
        raise PictureError(
            "too large", f"{shape} pixels; at most {MAX_PIXELS // 1_000_000} megapixels are read"
        )
    if price > MAX_BYTES:
        raise PictureError(
            "too large", f"{shape} pixels need {price / 1e9:.1f} GB in this format; save it as a plain JPEG"
        )
    if header.format == "PNG":
        _check_png(header, file, size)


def _price(image, size: int) -> int:
    """Return about how many bytes decoding takes: JPEG at a fraction of its size, the others in full."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        if not image.info.get("progressive"):
            return 0
        # The coefficients of all scans, two bytes each, wait for the last one; colour is mostly smaller.
        sampling = [across * down for _, across, down, _ in image.layer]
        return sum(2 * pixels * part // max(sampling) for part in sampling)
    if image.format == "TIFF":  # the file is mapped into memory, and a strip or tile of it decoded at a time
        tags = image.tag_v2
        rows, across = (
            tags.get(_TILE_HEIGHT, tags.get(_STRIP_ROWS, image.height)),
            tags.get(_TILE_WIDTH, image.width),
        )
        piece = min(rows, max(image.height, 4096)) * across * sum(tags.get(_SAMPLE_BITS, (8,))) // 8
        copies = 2 if tags.get(_ORIENTATION, 1) >= 5 else 1
        return 3 * pixels * copies + size + piece
    return pixels * BYTES_PER_PIXEL.get(image.format, 3)


def _is_raw_tiff(image) -> bool:
    """Tell whether a TIFF has plain, upright 8-bit pixels, which Pillow reads without a copy of the file."""
    return (
        image.format == "TIFF"
        and image.mode in ("RGB", "L")
        and image.info.get("compression") == "raw"
        and image.tag_v2.get(_ORIENTATION, 1) == 1
    )


def without_refinements(data: bytes) -> bytes:
    """Return a progressive JPEG without the scans that refine coefficients already told (ITU T.81, G.1.2).

    They are more than half of the file and of its price, and change a picture that is read at a quarter of
    its size by less than one grey level. What is not built as expected comes back as it is.
    """
    kept, at = [data[:2]], 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        start, marker = at, data[at + 1]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        refines = marker == _SCAN and data[at - 1 : at] > b"\x0f"
        if marker == _SCAN:
            while (at := data.find(b"\xff", at)) >= 0 and data[at + 1 : at + 2] in _WITHIN_SCAN:
                at += 2
        if not 0xC0 <= marker < 0xFF or at < 0:
            break
        if not refines:
            kept.append(data[start:at])
        if data[at : at + 2] == _END:
            return b"".join([*kept, _END])
    return data


def _check_png(header: Header, file: BinaryIO, size: int) -> None:
    """Walk through the chunks: none may claim more than is there, and the data must do for the pixels."""
    file.seek(8)
    data = 0
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if length > size - file.tell():
            raise PictureError("unreadable", f"a chunk claims {length} bytes, the whole file has {size}")
        if kind in (b"IDAT", b"fdAT"):
            data += length
        file.seek(length + 4, 1)
    if header.width * header.height // 8 > data * DEFLATE_RATIO:
        raise PictureError("unreadable", f"{size} bytes can't hold {header.width} x {header.height} pixels")
