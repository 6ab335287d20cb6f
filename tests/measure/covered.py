"""Faces with a mask, a hand or sunglasses drawn on: how many are labelled, rightly and wrongly.

    python tests/measure/covered.py data/london data/kdef
    python tests/measure/covered.py data/cfee --kinds bare

Each folder holds <emotion>/<person>...; classes that the shipped model does not know are left out. Printed
are, for each folder and thing drawn, the faces found, and those labelled rightly and wrongly (the others are
`uncertain`) without and with the rule for covered mouths of `app/pipeline.py`. `COVERED_CONTRAST` was chosen
on one half of the people (`--half 0`); the other half (`--half 1`, the default) tells what it is worth.
"""

import argparse
import hashlib
import re
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))

from utils.app.pipeline import FaceReader
from utils.config import MODELS
from utils.faces.images import is_image
from utils.video.frames import Frame
from utils.video.sources import read_picture_file

JAW_LEFT = [234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152]
JAW_RIGHT = [377, 400, 378, 379, 365, 397, 288, 361, 323, 454]
CHEEKS = [50, 280, 101, 330, 205, 425]
MASK_COLOURS = ((235, 225, 190), (240, 240, 240), (40, 40, 40), (180, 120, 60))
"""Blue, green, red."""


def paint(image: np.ndarray, outline: np.ndarray, colour, generator, texture: float = 3) -> np.ndarray:
    """Return an image with a soft-edged shape of one colour on it, darker to its sides, with some noise."""
    height, width = image.shape[:2]
    alpha = np.zeros((height, width), np.float32)
    cv2.fillPoly(alpha, [np.round(outline).astype(np.int32)], 1.0)
    alpha = cv2.GaussianBlur(alpha, (3, 3), 0)[..., None]
    left, right = outline[:, 0].min(), outline[:, 0].max()
    across = np.abs(np.arange(width) - (left + right) / 2) / max(1, (right - left) / 2)
    light = np.clip(image.mean() / 128, 0.5, 1.1) * (1 - 0.25 * across)[None, :, None]
    layer = np.clip(np.asarray(colour) * light + generator.normal(0, texture, (height, width, 1)), 0, 255)
    if not np.ptp(image, axis=2).any():  # a grey picture
        layer = layer.mean(axis=2, keepdims=True)
    return (image * (1 - alpha) + layer * alpha).astype(np.uint8)


def draw_mask(image, points, generator, texture: float = 3):
    outline = np.array([*points[JAW_LEFT], *points[JAW_RIGHT], points[4] * 0.65 + points[6] * 0.35])
    colour = MASK_COLOURS[generator.integers(len(MASK_COLOURS))]
    return paint(image, outline, colour, generator, texture)


def draw_patterned_mask(image, points, generator):
    return draw_mask(image, points, generator, texture=60)


def draw_hand(image, points, generator):
    """Four fingers across the mouth, in the colour of the cheeks."""
    width = np.ptp(points[:468, 0])
    rows, columns = points[CHEEKS].astype(int).T[::-1]
    skin = np.median(image[rows.clip(0, image.shape[0] - 1), columns.clip(0, image.shape[1] - 1)], axis=0)
    tilt = generator.uniform(-0.35, 0.35)
    along = np.array([np.cos(tilt) * generator.choice([-1, 1]), np.sin(tilt)])
    across = np.array([-along[1], along[0]]) * 0.058 * width
    for finger in range(4):
        middle = (points[13] + points[14]) / 2 + (0, ((finger - 1.5) * 0.105 + 0.02) * width)
        tip, root = middle - along * 0.28 * width, middle + along * 0.62 * width
        outline = np.array(
            [tip - across, tip - along * 0.05 * width, tip + across, root + across, root - across]
        )
        image = paint(image, outline, skin * generator.uniform(0.9, 1.02), generator)
        ends = [tuple(np.round(end + across).astype(int).tolist()) for end in (tip, root)]
        cv2.line(image, *ends, (skin * 0.6).tolist(), max(1, int(width / 90)), cv2.LINE_AA)
    return image


def draw_sunglasses(image, points, generator):
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for inner, outer in ((133, 33), (362, 263)):
        radius = 0.85 * np.linalg.norm(points[inner] - points[outer])
        outline = np.column_stack([np.cos(angles), 0.8 * np.sin(angles)]) * radius
        image = paint(image, (points[inner] + points[outer]) / 2 + outline, (25, 25, 25), generator)
    return image


KINDS = {
    "bare": lambda image, points, generator: image,
    "mask": draw_mask,
    "patterned": draw_patterned_mask,
    "hand": draw_hand,
    "sunglasses": draw_sunglasses,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--half", type=int, default=1, choices=(0, 1))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--most", type=int, default=10**9, help="pictures of each folder")
    args = parser.parse_args()
    reader = FaceReader(str(MODELS), max_faces=1)
    print(f"{'':<24}{'found':>6}{'right, wrong without':>24}{'with the rule':>18}")
    for folder in args.folders:
        counts = {kind: Counter() for kind in args.kinds}
        for path in list_pictures(folder, reader.classifier.classes, args.half)[: args.most]:
            count_picture(reader, path, counts)
        for kind, count in counts.items():
            print(
                f"{folder.name:<12}{kind:<12}{count['found']:>6}{count['before', True]:>16}"
                f"{count['before', False]:>8}{count['after', True]:>12}{count['after', False]:>6}"
            )


def list_pictures(folder: Path, classes: tuple, half: int) -> list[Path]:
    """Return the pictures of one half of a folder's people, evenly mixed."""
    paths = [path for name in classes for path in sorted((folder / name).glob("*")) if is_image(path)]

    def number(text: str) -> int:
        return int(hashlib.sha256(text.encode()).hexdigest(), 16)

    mine = [path for path in paths if number(re.split(r"[_.]", path.name)[0]) % 2 == half]
    return sorted(mine, key=lambda path: number(str(path.relative_to(folder))))


def count_picture(reader: FaceReader, path: Path, counts: dict[str, Counter]) -> None:
    """Add what is read from a picture with each thing drawn on its face."""
    image, label = read_picture_file(path.name, path).image, path.parent.name
    if not (faces := find(reader, image)):
        return
    points = faces[0].landmarks[:, :2] * image.shape[1]
    for kind, count in counts.items():
        drawn = KINDS[kind](image, points, np.random.default_rng(0))
        for face in find(reader, drawn):
            count["found"] += 1
            (row,) = reader.predict([face], drawn).probabilities
            if row.max() >= reader.classifier.threshold:
                count["before", reader.classifier.classes[row.argmax()] == label] += 1
            (result,) = reader.read(frame_of(drawn), [face])
            if result.emotion != "uncertain":
                count["after", result.emotion == label] += 1


def find(reader: FaceReader, image: np.ndarray) -> list:
    return reader.find(frame_of(image))


def frame_of(image: np.ndarray) -> Frame:
    return Frame(image, 0, 0, "drawn", time.monotonic(), still=True)


if __name__ == "__main__":
    main()
