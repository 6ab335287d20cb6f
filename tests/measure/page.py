"""The page in Chromium: size, frames a second, equality with main.py frame by frame, who is asked for what.

    python tests/measure/page.py
    python tests/measure/page.py --seconds 10

Needs Chromium, Node.js, and playwright-core (npm install playwright-core, or NODE_PATH).
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scr"), str(ROOT / "tests"), str(ROOT / "tests" / "page")]

import numpy as np
import test_page as page

from utils.app import web_page
from utils.config import MODELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=70, help="how long requests are watched (default: 70)")
    args = parser.parse_args()
    if page.WANTED:
        sys.exit(page.WANTED)
    page.CLIPS = {name: (path, 10_000) for name, (path, _) in page.CLIPS.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        web_page.write_page(MODELS, folder / "page")
        size = sum(path.stat().st_size for path in (folder / "page").rglob("*") if path.is_file())
        print(f"folder: {size / 1e6:.1f} MB")
        shutil.copy(page.DATA / "group.jpg", folder)
        page.write_camera_clip(folder / "clip.y4m")
        page.write_clips(folder / "page")
        with web_page.serving(folder / "page") as address:
            watch = {"WATCH_MS": str(1000 * args.seconds)}
            seen = page.browse(address, folder, ["watch", "clips"], **watch)
        for clip, (path, _) in page.CLIPS.items():
            same, differences = page.compare(seen["clips"][clip], page.read_by_main(path, folder))
            print(
                f"{clip}: same label on {same:.1%} of {len(differences)} frames; largest difference of a "
                f"probability: median {np.median(differences):.4f}, worst {differences.max():.3f}"
            )
    print(f"camera: {seen['watch'].pop('rate'):.1f} frames a second")
    print(f"watched for {args.seconds} s: {seen['watch']}")


if __name__ == "__main__":
    main()
