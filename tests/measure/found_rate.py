"""How often faces are found on stills, by width of the face and by tilt: the table of models/README.md.

    python tests/measure/found_rate.py
    python tests/measure/found_rate.py --images data/london --count 20

The faces: the portrait, the clips' and the group's of this repository, or some of any folder. Each is put on
a grey picture of 640 x 480, scaled to each width, or turned to each angle. Right: the tip of the nose lies
within a fifth of the face's width of where it must lie, and the eyes are turned by the same angle to within
15 degrees.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))
from utils.faces.images import is_image
from utils.faces.landmarker import FaceLandmarker

WIDTHS = (160, 96, 64, 48, 32, 24, 16, 12)
ANGLES = range(0, 360, 45)
TILT_WIDTHS = (96, 48)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="folder of pictures, the largest face of each is taken")
    parser.add_argument("--count", type=int, default=20, help="pictures to take of the folder")
    args = parser.parse_args()
    landmarker = FaceLandmarker(max_faces=None)
    faces = list(cut_faces(landmarker, load(args)))
    print(f"{len(faces)} faces\n\n| width, pixels | {' | '.join(map(str, WIDTHS))} |")
    print("|---|" + "---|" * len(WIDTHS))
    print(f"| found | {' | '.join(rate(landmarker, faces, width, 0)[0] for width in WIDTHS)} |")
    print(f"\n| turned by, degrees | {' | '.join(map(str, ANGLES))} |\n|---|" + "---|" * len(ANGLES))
    for width in TILT_WIDTHS:
        found, wrong = zip(*(rate(landmarker, faces, width, angle) for angle in ANGLES))
        print(f"| {width} px: found | {' | '.join(found)} |")
        print(f"| {width} px: read amiss | {' | '.join(wrong)} |")


def load(args) -> list[np.ndarray]:
    """Return the pictures to take faces from."""
    if args.images:
        paths = sorted(path for path in args.images.resolve().rglob("*") if is_image(path))
        return [cv2.imread(str(path)) for path in paths[:: max(1, len(paths) // args.count)][: args.count]]
    pictures = [cv2.imread(str(ROOT / "tests" / "assets" / name)) for name in ("astronaut.jpg", "group.jpg")]
    for clip in (ROOT / "assets" / "demo.mp4", ROOT / "tests" / "assets" / "smile.mp4"):
        capture = cv2.VideoCapture(str(clip))
        pictures.append(capture.read()[1])
        capture.release()
    return pictures


def cut_faces(landmarker, pictures: list[np.ndarray]):
    """Yield for each face a square of two and a half widths around it, and its points (478, 2) in it."""
    for picture in pictures:
        width = picture.shape[1]
        for face in landmarker.detect_picture(picture):
            points = face.landmarks[:, :2] * width
            low, high = points.min(axis=0), points.max(axis=0)
            reach = 1.25 * (high - low).max()
            left, top = ((low + high) / 2 - reach).round().astype(int)
            side = int(2 * reach)
            square = picture[max(0, top) : top + side, max(0, left) : left + side]
            yield square, points - np.maximum((left, top), 0)


def rate(landmarker, faces, width_px: int, degrees: int) -> tuple[str, str]:
    """Return the shares of faces that are found rightly, and of those that are read amiss in their place."""
    right = wrong = 0
    for square, points in faces:
        scale = width_px / np.ptp(points[:, 0])
        small = cv2.resize(
            square, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        )
        height, width = small.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        turn[:, 2] += 320 - width / 2, 240 - height / 2
        picture = cv2.warpAffine(small, turn, (640, 480), borderValue=(110, 110, 110))
        expected = scale * points @ turn[:, :2].T + turn[:, 2]
        found = [face.landmarks[:, :2] * 640 for face in landmarker.detect_picture(picture)]
        middle = expected.mean(axis=0)  # neighbours of a group may show on its square
        here = [face for face in found if np.linalg.norm(face.mean(axis=0) - middle) < width_px / 2]
        fits = [fit(face, expected, width_px) for face in here]
        right += any(fits)
        wrong += not all(fits)
    return f"{right / len(faces):.2f}", f"{wrong / len(faces):.2f}"


def fit(points: np.ndarray, expected: np.ndarray, width_px: int) -> bool:
    """Tell whether points (478, 2) lie where they must and the right way up."""
    angles = [np.arctan2(*(face[263] - face[33])[::-1]) for face in (points, expected)]
    turn = abs((angles[0] - angles[1] + np.pi) % (2 * np.pi) - np.pi)
    return np.linalg.norm(points[1] - expected[1]) < width_px / 5 and turn < np.radians(15)


if __name__ == "__main__":
    main()
