"""How pictures are read when they are made small, and how much becomes `neutral` then. Not a test.

    python tests/measure/small_pictures.py data/portraits data/cfee --sides 48 96 256
    python tests/measure/small_pictures.py data/portraits --model models/mine --classes all

Each folder holds <emotion>/*; a picture is shrunk until its longer side has so many pixels. A face that
is not found counts as wrong, as in evaluate.py.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))

from utils.app.api import Reader
from utils.config import MODELS
from utils.data.image_folder import find_labelled_images
from utils.evaluation.metrics import MISSED, evaluate_predictions
from utils.faces.images import import_cv2, load_picture


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--sides", nargs="+", type=int, default=[48, 96, 256], metavar="PIXELS")
    parser.add_argument("--model", default=str(MODELS))
    parser.add_argument("--classes", nargs="+", default=["all"])
    parser.add_argument("--most", type=int, default=10**9, help="pictures of each folder, evenly picked")
    args = parser.parse_args()
    reader = Reader(args.model, classes=args.classes)
    for folder in args.folders:
        images = find_labelled_images(folder, reader.classes)[0]
        images = images[:: max(1, -(-len(images) // args.most))]
        label = np.array([reader.classes.index(image.label) for image in images])
        for side in args.sides:
            predicted = np.array([read(reader, image.path, side) for image in images])
            report = evaluate_predictions(label, predicted, reader.classes)
            recall = "  ".join(f"{name} {value[0]:.2f}" for name, value in report["recall"].items())
            neutral = reader.classes.index("neutral")
            share = (predicted[label != neutral] == neutral).mean()
            print(
                f"{folder.name}, {side} px, {len(label)} pictures: {report['balanced_accuracy']:.3f}",
                end="  ",
            )
            print(f"others as neutral {share:.0%}  {recall}", flush=True)


def read(reader: Reader, path: Path, side: int) -> int:
    """Return the index of the likeliest class of the largest face on a picture made small, or `MISSED`."""
    cv2 = import_cv2()
    image = load_picture(path).image
    scale = min(1.0, side / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    faces = reader.read_faces(small)
    return int(np.argmax([*faces[0].probabilities.values()])) if faces else MISSED


if __name__ == "__main__":
    main()
