"""Hostile pictures and videos, made from seeds and read as main.py does: what becomes of them, what it costs.

    python tests/measure/hostile.py
    python tests/measure/hostile.py --count 500 --first 5000 --keep data/hostile

Each seed makes one file: cut off, with bits flipped, a header that lies, an odd size, mode or name, no file
at all. It is read as main.py reads it, its faces are drawn, its rows written and read back. Printed are the
numbers of files handled and refused by name; tracebacks, crashes and hangs (all should be 0), each with the
seed that makes it again; and the peak memory of the processes (goal: 1 GB).
"""

import argparse
import contextlib
import csv
import io
import json
import os
import resource
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))

import numpy as np

ASSETS = ROOT / "tests" / "assets"
FORMATS = {
    **{"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "PPM": ".ppm"},
    "AVIF": ".avif",
}
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "LA", "RGBA", "P", "1", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "L", "LA", "RGBA", "P", "1", "I;16", "F", "CMYK", "LAB"),
    "BMP": ("RGB", "L", "P", "1"),
    "PPM": ("RGB", "L", "1"),
    "AVIF": ("RGB", "RGBA"),
}
SIZES = (
    (1, 1),
    (1, 700),
    (700, 1),
    (2, 2),
    (23, 23),
    (16_000, 200),
    (200, 16_000),
    (9000, 30),
    (2000, 1500),
    (64, 64),
)
NAMES = (
    b"~%d",
    b"=%d+1",
    b"-%d",
    b"@%d",
    b"\xff\xfe%d",
    b"%d\n",
    b"%d\r",
    b"\x1b[31m%d",
    b"%d" + b"x" * 230,
    b"%d.mp4",
)
VIDEOS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".ts", ".gif")
PATIENCE_S = 60
MOST_FRAMES = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000, help="files (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the files here")
    args = parser.parse_args()
    report = measure(range(args.first, args.first + args.count), args.jobs, args.keep)
    for name in ("handled", "refused", "tracebacks", "crashes", "hangs"):
        print(f"{name:<12}{len(report[name]):>7}")
    print(f"{'peak memory':<12}{report['peak_mb']:>7.0f} MB")
    for reason, count in Counter(report["refused"].values()).most_common(12):
        print(f"    {count:>5} refused: {reason}")
    for name in ("tracebacks", "crashes", "hangs"):
        for seed, what in report[name].items():
            print(f"    {name} by seed {seed}: {what}")
    for megabytes, seed in report["dearest"]:
        print(f"    {megabytes:.0f} MB more by seed {seed}")


def measure(seeds: range, jobs: int, keep: Path | None = None) -> dict:
    """Return what became of each seed's file: handled, refused, tracebacks, crashes, hangs {seed: what}."""
    from utils.faces.pool import DIED, HUNG, work_through

    report = {name: {} for name in ("handled", "refused", "tracebacks", "crashes", "hangs")}
    peak_mb, dearest = 0.0, []
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        open_worker = partial(open_examiner, folder, keep is not None)
        results = work_through(open_worker, list(seeds), jobs, PATIENCE_S)
        for seed, result in zip(seeds, results):
            if result in (DIED, HUNG):
                report["crashes" if result == DIED else "hangs"][seed] = str(result)
                continue
            kind, what, before_mb, after_mb = result
            report[kind][seed] = what
            peak_mb = max(peak_mb, after_mb)
            dearest = sorted([*dearest, (after_mb - before_mb, seed)], reverse=True)[:5]
    return report | {"peak_mb": peak_mb, "dearest": [pair for pair in dearest if pair[0] > 50]}


@contextlib.contextmanager
def open_examiner(folder: Path, keep: bool):
    """Open what the live demo opens, in a process of its own; yields a function of a seed."""
    from utils.app.pipeline import FaceReader
    from utils.app.windows.live_view import View
    from utils.config import MODELS
    from utils.faces.images import import_cv2

    import_cv2().setNumThreads(1)
    reader = FaceReader(str(MODELS))
    classifier = reader.classifier
    yield partial(examine, folder, keep, reader, View(classifier.classes, classifier.name))


def examine(folder: Path, keep: bool, reader, view, seed: int) -> tuple[str, str, float, float]:
    """Return what became of a seed's file, in which words, and this process's peak MB before and after it."""
    before = peak_mb()
    path = make(folder, seed)
    try:
        problem = look_at(path, reader, view)
        kind, what = ("refused", problem) if problem else ("handled", "")
    except Exception:
        kind, what = "tracebacks", f"{path.name!a}: {traceback.format_exc(limit=-3)}"
    if not keep:
        os.unlink(path)
    return kind, what, before, peak_mb()


def peak_mb() -> float:
    """Return the peak memory of this process in MB; getrusage would count that of its parent, too."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def look_at(path: Path, reader, view) -> str:
    """Read, draw and write a file as main.py does; return why it is refused, or ""."""
    from utils.config import UserError
    from utils.video.sources import open_source

    words = ""
    try:
        with open_source(str(path)) as source:
            for frame in filter(None, source):
                if frame.index >= MOST_FRAMES:
                    break
                faces = reader.read(frame, reader.find(frame))
                view.draw(frame.image, faces, caption=path.name)
                check_rows(frame, faces, reader.classifier.classes, path.parent)
    except UserError as error:
        words = str(error).replace(str(path), "FILE")
        if "\n" in words.replace(path.name, ""):
            raise RuntimeError("more than one line") from error
    return words[-60:]


def check_rows(frame, faces: list, classes: tuple, folder: Path) -> None:
    """Write the rows of a frame in both formats; raise if they can't be read back."""
    from utils.app.results.table import FaceTable

    for suffix in (".csv", ".jsonl"):
        path = folder / f".rows-{os.getpid()}{suffix}"
        with FaceTable(path, classes) as table:
            table.write(frame.source, frame.index, frame.timestamp_ms, faces)
        text = path.read_bytes().decode("utf-8")
        if suffix == ".csv":
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            rows = [json.loads(line, parse_constant=_no_number) for line in text.splitlines()]
        if len(rows) != max(1, len(faces)):
            raise RuntimeError(f"{len(rows)} rows for {len(faces)} faces")
        path.unlink()
        height, width = frame.shape
        for face in faces:
            x, y, wide, high = face.box
            if not (0 <= x and 0 <= y and x + wide <= width and y + high <= height):
                raise RuntimeError(f"box {face.box} leaves the picture of {width} x {height}")


def _no_number(name: str):
    raise RuntimeError(f"{name} in JSON")


def make(folder: Path, seed: int) -> Path:
    """Write the file of a seed and return its path."""
    generator = np.random.default_rng(seed)
    kind = generator.choice(["picture", "video", "nothing"], p=[0.88, 0.1, 0.02])
    if kind == "nothing":
        return make_nothing(folder, seed, generator)
    data, suffix = (make_picture if kind == "picture" else make_video)(generator)
    stem = b"%05d" % seed
    if generator.random() < 0.3:
        stem = NAMES[generator.integers(len(NAMES))] % seed
    if generator.random() < 0.05:
        suffix = str(generator.choice([*FORMATS.values(), ".gif", ".jfif", ".jpe"]))
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + stem + suffix.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def make_nothing(folder: Path, seed: int, generator) -> Path:
    """Make what has a picture's name and is none."""
    path = folder / f"{seed:05}{generator.choice(['.jpg', '.png', '.mp4'])}"
    kind = generator.integers(5)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.touch()
    else:
        path.write_bytes(generator.bytes(int(generator.integers(1, 100_000))))
    return path


def make_picture(generator) -> tuple[bytes, str]:
    """Return a picture's bytes, hurt in one of several ways or sound but odd, and its suffix."""
    from PIL import Image

    kind = str(generator.choice(list(FORMATS)))
    with Image.open(ASSETS / str(generator.choice(["astronaut.jpg", "group.jpg", "landscape.jpg"]))) as image:
        image = image.convert("RGB")
    size = (
        SIZES[generator.integers(len(SIZES))] if generator.random() < 0.15 else generator.integers(20, 500, 2)
    )
    image = image.resize([int(side) for side in size])
    mode = str(generator.choice(MODES[kind])) if generator.random() < 0.4 else "RGB"
    image = convert(image, mode)
    options = {"exif": exif(image, generator)} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    if kind == "JPEG" and generator.random() < 0.3:
        options["progressive"] = True
    options |= {"AVIF": {"speed": 10}, "WEBP": {"method": 0}, "PNG": {"compress_level": 1}}.get(kind, {})
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except (ValueError, OSError, TypeError):  # a size or mode that the format has not
        image.convert("RGB").resize((64, 64)).save(file, kind)
    return hurt(file.getvalue(), kind, generator), FORMATS[kind]


def convert(image, mode: str):
    from PIL import Image

    if mode == "I;16":
        return Image.fromarray(np.array(image.convert("L")).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.array(image.convert("L")).astype(np.float32) - np.float32("nan"))
    if mode == "LAB":
        return Image.fromarray(np.array(image), "RGB").convert("RGB")
    return image.convert(mode)


def exif(image, generator) -> bytes:
    data = image.getexif()
    data[274] = int(generator.integers(0, 12))
    return data.tobytes()


def hurt(data: bytes, kind: str, generator) -> bytes:
    """Return the bytes of a picture or video, unhurt in a quarter of the cases."""
    how = generator.integers(8)
    raw = bytearray(data)
    if how == 0:
        return bytes(raw[: generator.integers(0, len(raw))])
    if how in (1, 2):  # bits, anywhere or in the header
        last = len(raw) if how == 1 else min(len(raw), 200)
        for place in generator.integers(0, last, int(generator.integers(1, 20))):
            raw[place] ^= 1 << int(generator.integers(8))
        return bytes(raw)
    if how == 3:
        return lie(raw, kind, generator)
    if how == 4:  # a piece repeated, zeroed or taken out
        start, end = sorted(generator.integers(0, len(raw), 2))
        piece = [raw[start:end] * 3, bytes(end - start), b""][generator.integers(3)]
        return bytes(raw[:start] + piece + raw[end:])
    if how == 5:
        return bytes(raw + generator.bytes(int(generator.integers(1, 50_000))))
    return data


def lie(raw: bytearray, kind: str, generator) -> bytes:
    """Return a picture whose header claims another size, or a chunk more than there is."""
    width, height = (
        int(generator.choice([0, 1, 15_000, 40_000, 65_535, 2**31 - 1, 2**32 - 1])) for _ in range(2)
    )
    if kind == "PNG" and generator.random() < 0.5:
        at = raw.find(b"IDAT") - 4
        raw[at : at + 4] = struct.pack(">I", int(generator.choice([2**31 - 1, 4_000_000_000, 10_000_000])))
    elif kind == "PNG":
        raw[16:24] = struct.pack(">II", width, height)
        raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    elif kind == "JPEG":
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            if (at := raw.find(marker)) > 0:
                raw[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif kind == "BMP":
        raw[18:26] = struct.pack("<II", width, height)
    elif kind == "PPM":
        return b"P6 %d %d 255\n" % (width, height) + bytes(raw[20:])
    else:  # TIFF, WebP, AVIF: any four bytes of the first hundred
        at = int(generator.integers(4, min(100, len(raw) - 4)))
        raw[at : at + 4] = struct.pack("<I", width)
    return bytes(raw)


def make_video(generator) -> tuple[bytes, str]:
    """Return a clip's bytes, hurt as pictures are, and a video's suffix."""
    data = (ASSETS / "smile.mp4").read_bytes()
    suffix = ".mp4" if generator.random() < 0.7 else str(generator.choice(VIDEOS))
    how = generator.integers(3)
    if how == 0:
        return generator.bytes(int(generator.integers(1, 20_000))), suffix
    return hurt(data, "MP4", generator), suffix


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s")
