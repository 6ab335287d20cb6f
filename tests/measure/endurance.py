"""The live demo for hours: memory, threads, open files and labels, while faces come and go.

    python tests/measure/endurance.py --frames 100000

Every 1,000 frames are the same scene: nobody, one person, nobody, another one, three people, the first one
again. Printed for each tenth of the run: resident memory in MB, threads, open files (the last two: the most
of that tenth), the share of frames whose faces have the labels that they had in the first thousand, and the
seconds of a thousand frames.
Ends with exit status 1 if memory grows by more than `MOST_GROWTH_MB` after the first tenth, if threads
or open files do, or if more than `MOST_OTHER` of the frames have other labels. Needs /proc, so Linux.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))

from utils.cli import make_parser, positive_int, run_script

import itertools
import os
import time
from collections.abc import Iterator

import cv2
import numpy as np

from utils.config import MODELS, UserError
from utils.video.frames import Frame, Source

ROUND = 1000
"""Frames of the scene."""
MOST_GROWTH_MB = 20.0
MOST_OTHER = 0.01
FRAME_MS = 42
ASSETS = ROOT / "tests" / "assets"
PEOPLE = 3


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--frames", type=positive_int, default=100_000, help="frames, whole thousands")
    return parser


def main(args):
    from utils.app.demo import Demo
    from utils.app.pipeline import FaceReader
    from utils.app.results.outputs import Outputs
    from utils.app.windows.live_view import LiveWindow, View

    rounds = max(2, args.frames // ROUND)
    watched = Watched(make_scene(), rounds)
    reader = FaceReader(str(MODELS), PEOPLE)
    view = View(reader.classifier.classes)
    window = LiveWindow(view, NoWindow(), watched)
    Demo(reader, Outputs(watched, view.classes), watched, view, window).run(watched)
    report(watched)


class NoWindow:
    """Stands for the window."""

    def show(self, image) -> None:
        pass

    def read_key(self, wait_s: float = 0) -> str:
        return ""


def read_frames(name: str, frames: range, folder: Path = ASSETS) -> list[np.ndarray]:
    """Return some frames of a clip, BGR, in the size of the scene."""
    capture, found = cv2.VideoCapture(str(folder / name)), []
    for index in range(frames.stop):
        image = capture.read()[1]
        if index in frames:
            found.append(fit(image))
    capture.release()
    return found


def fit(image: np.ndarray) -> np.ndarray:
    """Return a picture at 640 x 360, with black borders where its shape differs."""
    scale = min(640 / image.shape[1], 360 / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.zeros((360, 640, 3), np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas


def make_scene() -> list[np.ndarray]:
    """Return `ROUND` frames on which faces come and go."""
    nobody, group = (fit(cv2.imread(str(ASSETS / name))) for name in ("landscape.jpg", "group.jpg"))
    crying = read_frames("demo.mp4", range(470), ROOT / "assets")
    smiling = list(itertools.islice(itertools.cycle(read_frames("smile.mp4", range(70))), 140))
    scene = [nobody] * 80 + crying[:300] + [nobody] * 40 + smiling
    scene += [nobody] * 20 + [group] * 120 + crying[300:470]
    return scene + [nobody] * (ROUND - len(scene))


class Watched(Source):
    """A source that shows a scene over and over, and notes after every round how the process does.

    It also stands in the place of the summary, which each frame's faces are given to.
    """

    live = True

    def __init__(self, scene: list[np.ndarray], rounds: int):
        super().__init__("scene", "video")
        self.scene, self.rounds = scene, rounds
        self.states: list[tuple[float, int, int, float]] = []
        self.same: list[int] = []
        self.first: list[tuple] = []

    def __iter__(self) -> Iterator:
        for number in range(self.rounds):
            start = time.monotonic()
            for index, image in enumerate(self.scene, number * ROUND):
                yield Frame(image, index, index * FRAME_MS, "scene", time.monotonic())
            self.states.append((*count_resources(), time.monotonic() - start))

    def add_frame(self, frame, faces: list) -> None:
        """Note the labels of a frame."""
        labels = tuple(sorted(face.emotion for face in faces))
        number, index = divmod(frame.index, ROUND)
        if number == 0:
            self.first.append(labels)
        if len(self.same) <= number:
            self.same.append(0)
        self.same[number] += labels == self.first[index]


def count_resources() -> tuple[float, int, int]:
    """Return resident memory in MB, threads and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads, files = (len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, threads, files


def report(watched: Watched) -> None:
    """Print how the run went; raises UserError if it did not stay as it was."""
    print(f"{'frames':>8}{'memory':>10}{'threads':>9}{'files':>7}{'as in the first':>17}{'s a thousand':>14}")
    states, same = np.array(watched.states), np.array(watched.same) / ROUND
    tenth = max(1, len(states) // 10)
    rows = []
    for end in range(tenth, len(states) + 1, tenth):
        part, alike = states[end - tenth : end], same[end - tenth : end]
        rows.append((part[-1, 0], part[:, 1].max(), part[:, 2].max(), alike.min()))
        print(
            f"{end * ROUND:>8}{rows[-1][0]:>7.1f} MB{rows[-1][1]:>9.0f}{rows[-1][2]:>7.0f}"
            f"{rows[-1][3]:>17.1%}{part[:, 3].mean():>14.1f}"
        )
    first, last = rows[0], rows[-1]
    faces = sum(map(bool, watched.first)) / ROUND
    print(f"faces on {faces:.0%} of the frames; memory grew by {last[0] - first[0]:+.1f} MB")
    if last[0] - first[0] > MOST_GROWTH_MB or last[1] > first[1] or last[2] > first[2]:
        raise UserError("memory, threads or open files grew")
    if min(row[3] for row in rows) < 1 - MOST_OTHER:
        raise UserError("labels are not those of the first thousand frames")


if __name__ == "__main__":
    run_script(main, build_parser())
