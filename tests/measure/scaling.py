"""Time and memory of each step by the number of faces, made by repeating and jittering real ones. Not a test.

    python tests/measure/scaling.py --data data/affectnet.faces --faces 10000 40000 --output scaling.json

Each step runs in a process of its own, whose peak memory is told: `load` opens the set, `balance` and `train`
are the scripts. docs/scaling.md has what it printed.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))  # no script of the project and no test: nothing else sets its path

from utils.cli import make_parser, positive_int, run_script

import json
import os
import subprocess
import tempfile
import time

import numpy as np

from utils.config import DATA, UserError
from utils.data.arrays import Rows
from utils.data.face_set import SUFFIX, FaceSet, load_face_set, save_face_set
from utils.data.splits import prefix_group

STEPS = "load", "balance", "train"
JITTER = 0.002
"""Standard deviation of what is added to each coordinate, in image widths: half a pixel of 256."""


def build_parser():
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="NPZ", help="real faces to repeat")
    parser.add_argument("--faces", type=positive_int, nargs="+", default=[10_000, 40_000, 160_000, 450_000])
    parser.add_argument("--epochs", type=positive_int, default=2, help="of the training")
    parser.add_argument(
        "--network", default="landmarks", help="to train; one that looks at crops makes the set larger"
    )
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="steps to measure")
    parser.add_argument("--output", type=Path, metavar="JSON", help="where to write the figures")
    parser.add_argument("--make", type=Path, help="(a step's own process) set of the first number of faces")
    parser.add_argument("--load", type=Path, help="(a step's own process) set")
    return parser


def main(args):
    if args.make:
        real = load_face_set(args.data)
        return save_face_set(args.make, make(args.faces[0], real, with_crops=args.network != "landmarks"))
    if args.load:
        return len(load_face_set(args.load))
    rows = []
    for count in args.faces:
        DATA.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".scaling_", dir=DATA) as folder:
            rows.append({"faces": count} | measure(Path(folder), count, args))
        print(as_line(rows[-1]), flush=True)
        if args.output:
            args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, count: int, args) -> dict:
    """Return seconds and peak memory in MB of each step on a set of `count` faces."""
    face_set, own = folder / f"set{SUFFIX}", ["tests/measure/scaling.py", "--data", str(args.data)]
    run([*own, "--faces", str(count), "--network", args.network, "--make", str(face_set)])
    row = {"file_bytes": face_set.stat().st_size}
    steps = {
        "load": [*own, "--load", str(face_set)],
        "balance": ["scr/balance_dataset.py", "--data", str(face_set), "--output", str(folder / "equal")],
        "train": ["scr/train_model.py", "--data", str(face_set), "--network", args.network]
        + ["--epochs", str(args.epochs), "--output", str(folder / "model")],
    }
    for step in args.steps:
        row[f"{step}_s"], row[f"{step}_mb"], row[f"{step}_cpu_s"] = run(steps[step])
    return row


def make(count: int, real: FaceSet, with_crops: bool) -> FaceSet:
    """Return `count` faces, each a real one with noise on its landmarks."""
    generator = np.random.default_rng(0)
    chosen = generator.permutation(len(real))[np.arange(count) % len(real)]
    prefixes = [prefix_group(path) for path in real.path[chosen].tolist()]
    others = "label", "blendshapes", "source", "width", "height", "votes", "encoding"
    return FaceSet(
        Rows([Noisy(real.landmarks, chosen)]),
        crop=Rows([Blended(real.crop, chosen)]) if with_crops else None,
        path=np.array([f"{prefix}{number}.jpg" for number, prefix in enumerate(prefixes)]),
        sha256=np.array([generator.bytes(32).hex() for _ in range(count)]),
        **{name: getattr(real, name)[chosen] for name in others},
    )


class Noisy:
    """Landmarks that get noise when they are read: made whole they would not fit into memory."""

    dtype = np.dtype(np.float32)

    def __init__(self, values, chosen: np.ndarray):
        self._values, self._chosen = values, chosen
        self.shape = (len(chosen), *values.shape[1:])

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        values = self._values[self._chosen[rows]]
        noise = np.random.default_rng(int(rows[0])).standard_normal(values.shape, np.float32)
        return values + JITTER * noise


class Blended(Noisy):
    """Crops, each a blend of its face's and another's: the same crop twice would be a duplicate."""

    dtype = np.dtype(np.uint8)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        generator = np.random.default_rng(int(rows[0]))
        part = generator.uniform(0.2, 0.8, (len(rows), 1, 1)).astype(np.float32)
        others = generator.integers(0, len(self._values), len(rows))
        return (part * self._values[self._chosen[rows]] + (1 - part) * self._values[others]).astype(np.uint8)


def run(command: list[str]) -> tuple[float, int, float]:
    """Return seconds, peak memory in MB and seconds of CPU time of a Python program."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise UserError(f"{' '.join(command)} ended with {process.returncode}: {said.read()[-500:]}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return round(time.monotonic() - start, 1), usage.ru_maxrss // 1024, round(cpu_s, 1)


def as_line(row: dict) -> str:
    steps = [name[:-3] for name in row if name.endswith("_mb")]
    told = [f"{step} {row[step + '_s']} s, {row[step + '_mb']} MB" for step in steps]
    return f"{row['faces']:>9} faces: " + "; ".join(told)


if __name__ == "__main__":
    run_script(main, build_parser())
