"""How many re-encodings are found to be the same picture, and how many other moments another. Not a test.

    python tests/measure/duplicates.py --images data/london data/kdef data/portraits data/affectnet data/rafdb

The first table: pictures drawn from these folders, and what was made of each. The second: frames of two clips
and pictures of a few people, each as its camera made it, and as if each had an encoding of its own.
docs/sets.md has what it printed.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))  # no script of the project and no test: nothing else sets its path

from utils.cli import make_parser, positive_int, run_script

import tempfile
from dataclasses import replace

import cv2
import numpy as np

from utils.config import SEED
from utils.data.extraction import extract
from utils.data.face_set import SUFFIX, FaceSet, load_face_set
from utils.data.image_folder import LabelledImage
from utils.data.splits import find_duplicates
from utils.faces.images import is_image

CLIPS = {
    "smile.mp4": (ROOT / "tests" / "assets" / "smile.mp4", range(72)),
    "demo.mp4": (ROOT / "assets" / "demo.mp4", range(130, 300)),
}


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--count", type=positive_int, default=12, help="pictures drawn from each folder")
    parser.add_argument(
        "--moments",
        type=Path,
        nargs="*",
        default=[],
        metavar="DIR",
        help="pictures of few people, all different",
    )
    parser.add_argument("--jobs", type=positive_int, default=2)
    return parser


def main(args):
    generator = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = write_copies(root, args.images, args.count, generator)
        report_copies(read(images, root, args.jobs))
        print()
        sets = {name: write_frames(root / "clips" / name, *clip) for name, clip in CLIPS.items()}
        sets |= {path.name: sorted(filter(is_image, path.rglob("*"))) for path in args.moments}
        for name, paths in sets.items():
            images = [LabelledImage(path, "other") for path in paths]
            report_moments(name, read(images, Path(images[0].path.anchor), args.jobs))


def read(images: list[LabelledImage], root: Path, jobs: int) -> FaceSet:
    """Return the set of pictures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{SUFFIX}"
        extract(images, root, "measured", path, jobs)
        data = load_face_set(path)
        return replace(data, landmarks=data.landmarks[:], crop=data.crop[:])


def encode(image: np.ndarray, suffix: str, *flags) -> tuple[str, bytes]:
    """Return the suffix and content of a picture's file."""
    return suffix, cv2.imencode(suffix, image, flags)[1].tobytes()


def copies_of(image: np.ndarray, generator: np.random.Generator) -> dict[str, tuple[str, bytes]]:
    """Return what is made of a picture, by kind: suffix and content of its file."""
    jpeg, webp = cv2.IMWRITE_JPEG_QUALITY, cv2.IMWRITE_WEBP_QUALITY

    def resized(image, scale):
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=way)

    def cropped(part):
        height, width = image.shape[:2]
        top, bottom, left, right = generator.uniform(0, part, 4)
        return image[
            int(top * height) : height - int(bottom * height), int(left * width) : width - int(right * width)
        ]

    again = cv2.imdecode(np.frombuffer(encode(image, ".jpg", jpeg, 90)[1], np.uint8), cv2.IMREAD_COLOR)
    return {
        "JPEG 90": encode(image, ".jpg", jpeg, 90),
        "JPEG 90 of JPEG 90": encode(again, ".jpg", jpeg, 90),
        **{f"JPEG {quality}": encode(image, ".jpg", jpeg, quality) for quality in (80, 60, 40, 20)},
        "PNG": encode(image, ".png"),
        **{f"WebP {quality}": encode(image, ".webp", webp, quality) for quality in (80, 40)},
        **{f"size x {scale}": encode(resized(image, scale), ".jpg") for scale in (0.5, 0.7, 1.5, 2)},
        **{
            f"up to {part:.0%} cropped off each side": encode(cropped(part), ".jpg")
            for part in (0.03, 0.06, 0.1)
        },
        "5% cropped off, x 0.6, JPEG 70": encode(resized(cropped(0.05), 0.6), ".jpg", jpeg, 70),
        "grey": encode(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), ".jpg"),
    }


def write_copies(root: Path, folders: list[Path], count: int, generator) -> list[LabelledImage]:
    """Write pictures drawn from folders, and copies of them; their label is the kind of copy."""
    images = []
    for folder in folders:
        paths = sorted(filter(is_image, folder.rglob("*")))
        for path in generator.permutation(paths)[:count]:
            image, name = cv2.imread(str(path)), f"{folder.name}_{path.stem}"
            for kind, (suffix, content) in {
                "original": (path.suffix, path.read_bytes()),
                **copies_of(image, generator),
            }.items():
                place = root / "copies" / kind / f"{name}{suffix}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
                images.append(LabelledImage(place, kind))
    return images


def write_frames(folder: Path, clip: Path, wanted: range) -> list[Path]:
    """Write frames of a clip as a camera's pictures; return their paths."""
    folder.mkdir(parents=True)
    capture, paths, number = cv2.VideoCapture(str(clip)), [], 0
    while (read_frame := capture.read())[0]:
        if number in wanted:
            paths.append(folder / f"{number:04}.jpg")
            cv2.imwrite(str(paths[-1]), read_frame[1])
        number += 1
    return paths


def report_copies(data: FaceSet) -> None:
    """Print for each kind of copy how many are found to be the same picture as their original."""
    names = np.array([Path(path).stem for path in data.path.tolist()])
    print(f"{'copy':<40}{'faces':>7}{'found':>7}")
    for kind in dict.fromkeys(data.label.tolist()):
        if kind == "original":
            continue
        rows = np.flatnonzero(np.isin(data.label, ["original", kind]))
        first = rows[find_duplicates(data.select(rows))]
        copies = [
            row for row in np.flatnonzero(data.label == kind) if names[row] in names[data.label == "original"]
        ]
        found = sum(
            names[first[rows == row][0]] == names[row] and first[rows == row][0] != row for row in copies
        )
        print(f"{kind:<40}{len(copies):>7}{found / len(copies):>7.1%}")
    first = find_duplicates(data)
    print(f"all at once: {(names[first] != names).sum()} of {len(data)} faces are taken for another picture")


def report_moments(name: str, data: FaceSet) -> None:
    """Print how many pictures, all different, are kept."""
    own = replace(data, encoding=np.array([str(row) for row in range(len(data))]))
    kept, kept_own = (len(np.unique(find_duplicates(one))) for one in (data, own))
    print(f"{name:<20}{len(data):>6} pictures: {kept} kept; {kept_own} if each had an encoding of its own")


if __name__ == "__main__":
    run_script(main, build_parser())
