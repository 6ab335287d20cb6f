"""Any picture, at a bounded price, upright, in its own pixels; or refused by name before it is decoded."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import DATA, ROOT
from PIL import Image

from utils.faces import images
from utils.faces.images import PictureError, is_animated, load_picture, read_animation

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")

LIMITED = """
import resource, sys
from utils.faces.images import PictureError, import_cv2, load_picture
import PIL.Image
import_cv2().setNumThreads(1)
load_picture(sys.argv[1])  # what is loaded once is not counted
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2]) * 1_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[3:]:
    try:
        picture = load_picture(path)
        print(picture.width, picture.height, *picture.image.shape)
    except PictureError as error:
        print(error)
"""


def load_limited(megabytes: int, *paths: Path) -> list[str]:
    """Return a line for each picture, read in a process that may take so much memory beyond its own."""
    command = [sys.executable, "-c", LIMITED, DATA / "astronaut.jpg", str(megabytes), *paths]
    # A thread of OpenBLAS that begins late, on a busy machine, would take its memory from the limit.
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scr"), "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    """Return a PNG chunk, which may lie about its length."""
    size = len(data) if length is None else length
    return struct.pack(">I4s", size, kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@linux
def test_large_pictures_stay_within_their_memory(tmp_path, portrait):
    """190 megapixels as JPEG in a fraction of their size; as PNG, 100 in little more than it."""
    large = np.zeros((13_800, 13_800, 3), np.uint8)
    large[:512, :512] = portrait
    cv2.imwrite(str(tmp_path / "large.jpg"), large)
    cv2.imwrite(str(tmp_path / "dear.png"), large)
    cv2.imwrite(str(tmp_path / "large.png"), large[:10_000, :10_000])
    del large
    assert load_limited(200, tmp_path / "large.jpg") == ["13800 13800 3450 3450 3"]
    assert load_limited(600, tmp_path / "large.png") == ["10000 10000 2500 2500 3"]
    assert load_limited(50, tmp_path / "dear.png")[0].startswith("too large: 13800 x 13800 pixels")
    ordinary = cv2.resize(portrait, (4000, 3000))
    cv2.imwrite(str(tmp_path / "ordinary.jpg"), ordinary)
    assert load_limited(180, tmp_path / "ordinary.jpg") == ["4000 3000 3000 4000 3"]


@linux
def test_headers_that_lie_are_refused_before_anything_is_decoded(tmp_path):
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    lies = {
        "chunk.png": png(64, 64, chunk(b"IDAT", b"x" * 47_000, length=4_000_000_000)),
        "late.png": png(16, 16, pixels, chunk(b"tEXt", b"x", length=4_000_000_000)),
        "huge.png": png(60_000, 60_000, pixels),
        "empty.png": png(14_000, 14_000, pixels),
        "negative.png": png(0xFFFFFFFF, 0xFFFFFFFF, pixels),
        "frame.jpg": bytes.fromhex("ffd8 ffc0 0011 08 ffff ffff 03 011100 021100 031100 ffda"),
        "pixels.ppm": b"P6 60000 60000 255\n" + bytes(100),
    }
    for name, data in lies.items():
        (tmp_path / name).write_bytes(data)
    answers = load_limited(100, *(tmp_path / name for name in lies))
    assert len(answers) == len(lies)
    for name, answer in zip(lies, answers):
        assert answer.startswith(("unreadable: ", "too large: ")), (name, answer)
    assert answers[2] == "too large: 60000 x 60000 pixels; at most 200 megapixels are read"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_pictures_come_upright_whole_and_reduced(suffix, orientation, portrait, tmp_path, monkeypatch):
    """Stored turned in each way that EXIF knows, in each format that carries it."""
    upright = portrait[:480, :360]
    image = Image.fromarray(np.ascontiguousarray(upright[:, :, ::-1]))
    if orientation > 1:  # what undoes it, in the order of EXIF's values
        flip, turn = (
            ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"),
            ("ROTATE_90", "TRANSVERSE", "ROTATE_270"),
        )
        image = image.transpose(Image.Transpose[(*flip, "TRANSPOSE", *turn)[orientation - 2]])
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    for most, part in ((images.MAX_READ_PIXELS, 1), (480 * 360 // 4, 2), (480 * 360 // 16, 4)):
        monkeypatch.setattr(images, "MAX_READ_PIXELS", most)
        picture = load_picture(tmp_path / f"a.{suffix}")
        assert (picture.width, picture.height) == (360, 480)
        assert picture.image.shape == (480 // part, 360 // part, 3) and picture.image.flags.c_contiguous
        wanted = cv2.resize(upright, (360 // part, 480 // part), interpolation=cv2.INTER_AREA)
        assert np.abs(picture.image.astype(int) - wanted).mean() < 6


def test_every_kind_of_pixel_is_read_alike(portrait, tmp_path):
    rgb = Image.fromarray(np.ascontiguousarray(portrait[:, :, ::-1]))
    grey = rgb.convert("L")
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    rgb.convert("RGBA").save(tmp_path / "alpha.png")
    rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    rgb.save(tmp_path / "animated.webp", save_all=True, append_images=[grey.convert("RGB")], quality=95)
    rgb.save(tmp_path / "animated.png", save_all=True, append_images=[grey.convert("RGB")])
    rgb.save(tmp_path / "progressive.jpe", format="JPEG", progressive=True, quality=95)
    cv2.imwrite(str(tmp_path / "deep.png"), portrait.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "deep.tif"), portrait.astype(np.uint16) * 257)
    for path in tmp_path.iterdir():
        picture = load_picture(path)
        assert picture.image.dtype == np.uint8, path.name
        assert np.abs(picture.image.astype(int) - portrait).mean() < 9, path.name
    grey.save(tmp_path / "grey.jfif", format="JPEG", quality=95)
    picture = load_picture(tmp_path / "grey.jfif").image
    assert (picture[..., 0] == picture[..., 2]).all() and np.abs(
        picture[..., 0] - np.array(grey, int)
    ).mean() < 3


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("endless.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    reasons = {}
    for path in (*tmp_path.iterdir(), tmp_path / "missing.jpg"):
        with pytest.raises(PictureError) as raised:
            load_picture(path)
        reasons[path.stem] = raised.value.reason
    no_file = "no regular file"
    assert reasons == {
        "pipe": no_file,
        "device": no_file,
        "folder": no_file,
        "endless": "unreadable",
        "missing": "unreadable",
        "empty": "unreadable",
    }


def test_names_of_any_bytes_are_read(portrait, tmp_path):
    data = cv2.imencode(".png", portrait)[1].tobytes()
    for name in (b"\xff\xfe.png", b"-h.png", b"~.png", b"=1+1.png", b"x" * 251 + b".png", "ü\n.png".encode()):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(data)
        assert (load_picture(path).image == portrait).all()


def test_a_price_is_named(portrait, tmp_path, monkeypatch):
    rgb = Image.fromarray(np.ascontiguousarray(portrait[:, :, ::-1]))
    rgb.save(tmp_path / "dear.jpg", progressive=True)
    rgb.save(tmp_path / "cheap.jpg")
    monkeypatch.setattr(images, "MAX_BYTES", 1_000_000)
    with pytest.raises(PictureError, match="512 x 512 pixels in this format; save it as a plain JPEG"):
        load_picture(tmp_path / "dear.jpg")
    assert load_picture(tmp_path / "cheap.jpg").width == 512


def test_animated_files_are_told_by_what_they_hold(portrait, tmp_path):
    first, second = (Image.fromarray(np.ascontiguousarray(portrait[:, ::step])) for step in (1, -1))
    for suffix in ("gif", "png", "webp"):
        first.save(tmp_path / f"still.{suffix}")
        first.save(tmp_path / f"moving.{suffix}", save_all=True, append_images=[second], duration=200)
        assert not is_animated(tmp_path / f"still.{suffix}")
        assert is_animated(tmp_path / f"moving.{suffix}")
        frames = list(read_animation(tmp_path / f"moving.{suffix}"))
        assert [time_ms for _, time_ms in frames] == [0, 200]
        for (frame, _), wanted in zip(frames, (portrait, portrait[:, ::-1])):
            assert np.abs(frame.astype(int) - wanted[:, :, ::-1]).mean() < 9
    (tmp_path / "text.gif").write_text("GIF89a, they say")
    assert not is_animated(tmp_path / "text.gif") and not is_animated(tmp_path / "missing.gif")
