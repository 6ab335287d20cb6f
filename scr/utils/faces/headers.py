"""What a picture file says of itself, read before anything is decoded. The sole owner of Pillow.

Decoders allocate what a header claims: a PNG of 47 KB took 4.1 GB. So size, turn and price come from here, and what is too
dear or contradicts itself is refused by name.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

MAX_PIXELS = 200_000_000
"""More than the largest sensors of telephones have; a picture of this size is read within 1 GB."""
MAX_BYTES = 900_000_000
"""What decoding may take, beside the program itself."""
DEFLATE_RATIO = 1032
"""Deflate can't make less of more (RFC 1951: 258 bytes by two bits)."""
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "GIF", "JPEG2000")
BYTES_PER_PIXEL = {"AVIF": 10, "HEIF": 10, "JPEG2000": 15}
"""What decoding takes where it is more than three: measured."""
_ORIENTATION, _SAMPLE_BITS, _STRIP_ROWS, _TILE_WIDTH, _TILE_HEIGHT = 274, 258, 278, 322, 323
"""Tags of EXIF and TIFF."""


class PictureError(Exception):
    """A picture that is not read: `reason` is one of a few, to count by; the text tells all."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """Format by Pillow's name, width and height in pixels as stored, EXIF orientation 1 to 8 that is still to be applied."""

    format: str
    width: int
    height: int
    orientation: int


def read_header(file: BinaryIO, size: int) -> Header:
    """Return the header of a picture file of `size` bytes; raises PictureError if it is none, or must not be decoded."""
    from PIL import Image

    if size == 0:
        raise PictureError("unreadable", "the file is empty")
    Image.MAX_IMAGE_PIXELS = None  # our own limit is below, and is an answer, not a warning
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            header = Header(image.format, *image.size, _orientation(image))
            price = _price(image, size)
    except Exception as error:  # each of Pillow's parsers has its own
        raise PictureError("unreadable", "no picture, or damaged") from error
    _check(header, price, file, size)
    return header


def _orientation(image) -> int:
    if image.format == "TIFF":  # Pillow's size and OpenCV's pixels are upright already
        return 1
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is no reason to refuse the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


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
    """Return about how many bytes decoding takes: a JPEG is decoded at a fraction of its size, the others in full."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        if not image.info.get("progressive"):
            return 0
        # The coefficients of all scans, two bytes each, wait for the last one; colour is mostly stored at half the size.
        sampling = [across * down for _, across, down, _ in image.layer]
        return sum(2 * pixels * part // max(sampling) for part in sampling)
    if image.format == "TIFF":  # the file is mapped into memory, and a strip or tile of it decoded at a time
        tags = image.tag_v2
        rows, across = (
            tags.get(_TILE_HEIGHT, tags.get(_STRIP_ROWS, image.height)),
            tags.get(_TILE_WIDTH, image.width),
        )
        piece = min(rows, max(image.height, 4096)) * across * sum(tags.get(_SAMPLE_BITS, (8,))) // 8
        return 3 * pixels + size + piece
    return pixels * BYTES_PER_PIXEL.get(image.format, 3)


def _check_png(header: Header, file: BinaryIO, size: int) -> None:
    """Walk through the chunks: none may claim more than is there, and the data must suffice for the pixels."""
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
