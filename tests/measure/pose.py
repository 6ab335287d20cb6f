"""The signs of yaw, pitch and roll in a picture, and how far MediaPipe's own angles are from ours.

    python tests/measure/pose.py --output assets/pose.png
    python tests/measure/pose.py --images data/london data/rafdb/happy

The picture shows MediaPipe's canonical face, as it is and turned by 20 degrees. For folders of pictures, mean
and standard deviation of what is printed: our angles less those of MediaPipe's FaceLandmarker (its
transformation matrix, which knows perspective), on the pictures on which both find a face.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("scr", "tests", "tests/faces")]

from utils.cli import make_parser, positive_int, run_script

import cv2
import numpy as np
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation
from test_pose import rotation

from utils.app.windows.canvas import CONTOURS
from utils.config import MODELS
from utils.faces.images import is_image
from utils.faces.landmarker import FaceLandmarker
from utils.faces.pose import CANONICAL_FILE, POSE, head_pose

TILE_PX, DEGREES = 300, 20


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the picture")
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[], metavar="DIR", help="pictures to compare on"
    )
    parser.add_argument("--most", type=positive_int, default=200, help="pictures of each folder")
    return parser


def main(args):
    if args.output:
        turns = [("0, 0, 0", np.zeros(3))]
        turns += [(f"{name} +{DEGREES}", DEGREES * angles) for name, angles in zip(POSE, np.eye(3))]
        cv2.imwrite(str(args.output), np.hstack([draw(*turn) for turn in turns]))
    for folder in args.images:
        compare(folder, args.most)


def draw(text: str, angles: np.ndarray) -> np.ndarray:
    """Return the canonical face, turned and lit from the camera, with a text under it."""
    face = np.loadtxt(CANONICAL_FILE, delimiter=",")
    turned = face @ rotation(angles).T
    points = np.round(turned[:, :2] * TILE_PX / 24 * 16 + [TILE_PX * 8, TILE_PX * 7.2]).astype(np.int32)
    picture = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
    triangles = Delaunay(face[:, :2]).simplices
    for triangle in sorted(triangles.tolist(), key=lambda one: -turned[one, 2].mean()):
        normal = np.cross(*(turned[triangle[1:]] - turned[triangle[0]]))
        light = abs(normal[2]) / np.linalg.norm(normal)
        shade = tuple(light * np.array([185.0, 205, 230]))
        cv2.fillConvexPoly(picture, points[triangle], shade, cv2.LINE_AA, 4)
    for loop in CONTOURS[1:]:
        cv2.polylines(picture, [points[list(loop)]], False, (90, 60, 40), 1, cv2.LINE_AA, 4)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 0.7, 1)
    place = (TILE_PX - width) // 2, TILE_PX - 12
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_DUPLEX, 0.7, (40, 40, 40), 1, cv2.LINE_AA)
    return picture


def compare(folder: Path, most: int) -> None:
    """Print our angles less MediaPipe's on pictures of a folder."""
    sys.modules["tensorflow"] = None  # MediaPipe would load it
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        BaseOptions(str(MODELS / "face_landmarker.task")), output_facial_transformation_matrixes=True
    )
    theirs, ours = vision.FaceLandmarker.create_from_options(options), FaceLandmarker()
    files = sorted(path for path in folder.rglob("*") if is_image(path))
    flip, differences = np.diag([1, -1, -1]), []
    for path in files[:: -(-len(files) // most)]:
        picture = cv2.imread(str(path))
        rgb = np.ascontiguousarray(picture[:, :, ::-1])
        matrices = theirs.detect(mp.Image(mp.ImageFormat.SRGB, rgb)).facial_transformation_matrixes
        faces = ours.detect_picture(picture)
        if matrices and faces:  # theirs has y upward and z toward the camera
            turn = flip @ np.array(matrices[0])[:3, :3] @ flip
            their_pose = -Rotation.from_matrix(turn).as_euler("YXZ", degrees=True)
            differences.append(head_pose(faces[0].landmarks[None])[0] - their_pose)
    mean, deviation = np.mean(differences, axis=0), np.std(differences, axis=0)
    figures = ", ".join(f"{name} {one:+.1f} (sd {sd:.1f})" for name, one, sd in zip(POSE, mean, deviation))
    print(f"{folder}: {len(differences)} faces, {figures}")


if __name__ == "__main__":
    run_script(main, build_parser())
