"""Time and memory of each step by the number of faces, made by repeating and jittering real ones. Not a test.

    python tests/measure/scaling.py --data data/affectnet.faces --faces 10000 40000 --output scaling.json

Each step runs in a process of its own, whose peak memory is told: `merge` joins the part files of an
extraction, `load` opens the set, `balance` and `train` are the scripts. docs/scaling.md has what it printed.
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
from utils.data.extraction import CHUNK, extract, part_path
from utils.data.face_set import FaceSet, load_face_set, save_face_set
from utils.data.splits import prefix_group

STEPS = "merge", "load", "balance", "train"
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
    parser.add_argument("--merge", type=Path, nargs=2, help="(a step's own process) parts and set")
    parser.add_argument("--load", type=Path, help="(a step's own process) set")
    return parser


def main(args):
    if args.merge:
        return merge(*args.merge)
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
    landmark_set, own = folder / "set.faces", ["tests/measure/scaling.py", "--data", str(args.data)]
    start = time.monotonic()
    write_parts(folder / "parts", count, load_face_set(args.data), with_crops=args.network != "landmarks")
    row = {"make_s": round(time.monotonic() - start, 1)}
    steps = {
        "merge": [*own, "--merge", str(folder / "parts"), str(landmark_set)],
        "load": [*own, "--load", str(landmark_set)],
        "balance": ["scr/balance_dataset.py", "--data", str(landmark_set), "--output", str(folder / "equal")],
        "train": ["scr/train_model.py", "--data", str(landmark_set), "--network", args.network]
        + ["--epochs", str(args.epochs), "--output", str(folder / "model")],
    }
    merge_too = ("merge",) if "merge" not in args.steps else ()
    for step in (*merge_too, *(one for one in STEPS if one in args.steps)):
        row[f"{step}_s"], row[f"{step}_mb"], row[f"{step}_cpu_s"] = run(steps[step])
    return row


def write_parts(parts_dir: Path, count: int, real: FaceSet, with_crops: bool) -> None:
    """Write `count` faces as an extraction leaves them: a file for every `CHUNK` pictures."""
    generator = np.random.default_rng(0)
    parts_dir.mkdir()
    order = generator.permutation(len(real))
    prefixes = np.array([prefix_group(path) for path in real.path.tolist()])
    for start in range(0, count, CHUNK):
        number = np.arange(start, min(start + CHUNK, count))
        chosen = order[number % len(real)]
        noise = JITTER * generator.standard_normal((len(number), *real.landmarks.shape[1:]), np.float32)
        columns = {
            "landmarks": real.landmarks.read(chosen) + noise.astype(np.float32),
            "path": np.array([f"{prefix}{one}.jpg" for prefix, one in zip(prefixes[chosen], number)]),
            "sha256": np.array([generator.bytes(32).hex() for _ in number]),
            "phash": generator.integers(1, 2**64, len(number), dtype=np.uint64),
        }
        others = "label", "blendshapes", "source", "width", "height", "votes"
        columns |= {name: getattr(real, name)[chosen] for name in others}
        crop = real.crop[chosen] if with_crops and real.crop is not None else None
        save_face_set(part_path(parts_dir, start), FaceSet(**columns, crop=crop))


def merge(parts_dir: Path, output: Path) -> None:
    """Join parts as `extract_landmarks.py` does when all are there."""
    last = max(parts_dir.glob("*.faces"))
    images = [None] * (int(last.stem) + len(load_face_set(last)))
    save_face_set(output, extract(images, parts_dir, "made", 1, parts_dir))


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
