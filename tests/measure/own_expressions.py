"""A model of own expressions at work, from this repository's clips: how long it takes, and a picture.

    python tests/measure/own_expressions.py
    python tests/measure/own_expressions.py --output assets/own_expressions.png

Two sessions of `mouth open` and `mouth shut` are recorded, a model is trained, and frames of which nothing
was recorded are read, all by the scripts. Printed are the seconds that this takes (goal: 60 on two cores).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("scr", "tests", "tests/training")]

from utils.cli import make_parser, run_script

import tempfile
import time

import cv2
import numpy as np
from conftest import frames_of, run
from test_own_expressions import OPEN, SHUT, record_and_train, write_clips


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="picture of a shut and an open mouth, read"
    )
    return parser


def main(args):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start = time.monotonic()
        printed, held_out = record_and_train(root)
        write_clips(root / "clips", held_out)
        for number in range(len(held_out)):
            live = ["--source", root / "clips" / f"{number}.avi", "--model", root / "model", "--no-display"]
            read = run("main.py", *live, "--smoothing-ms", 0, "--save", root / f"{number}.mp4")
            assert read.returncode == 0, read.stderr
        print(f"{printed}recorded, trained and read in {time.monotonic() - start:.0f} s")
        if args.output:
            write_picture(args.output, root, held_out[0])


def write_picture(path: Path, root: Path, frames: list) -> None:
    """Write the middle one of a clip's frames of each label, as main.py draws it, side by side."""
    drawn = list(frames_of(root / "0.mp4"))
    labels = [label for _, _, label in frames]
    rows = [np.flatnonzero(np.array(labels) == label) for label in (SHUT, OPEN)]
    shown = [drawn[of_label[len(of_label) // 2]] for of_label in rows]
    cv2.imwrite(str(path), np.concatenate(shown, axis=1))


if __name__ == "__main__":
    run_script(main, build_parser())
