"""Labelled pictures -> a set of faces (.faces): 478 3D points and 52 blendshapes of the largest face on each.

    python scr/extract_landmarks.py --dataset affectnet
    python scr/extract_landmarks.py --images data/fer2013 --labels data/fer2013/fer2013new.csv
    python scr/extract_landmarks.py --images data/photos

Each sub-folder is a class, whether it is named `happy` or `wink`; names of the usual emotions are unified
(`Joy` is `happy`).

Run again it reads what is new or has changed: after Ctrl-C, a power cut, or with some pictures added.
"""

from utils.cli import make_parser, positive_int, run_script

import os
from collections import Counter
from pathlib import Path

from utils.config import DATA, UserError, relative
from utils.data.classes import check_classes
from utils.data.extraction import extract
from utils.data.face_set import SUFFIX, load_face_set
from utils.data.image_folder import apply_patterns, find_labelled_images, read_ferplus

DATASETS = {"affectnet": "mstjebashazida/affectnet/versions/1", "fer2013": "msambare/fer2013/versions/1"}
"""Versions are pinned: an unpinned handle asks the network even when the files are cached."""


def build_parser():
    parser = make_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dataset", choices=DATASETS, help="download by kagglehub, or use its cached copy")
    what.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="a folder with one for each class, with or without Train and Test",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="CSV", help="FER+ votes (fer2013new.csv) instead of folder names"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="folders to take as classes, wherever they are (default: the known emotions and those beside)",
    )
    parser.add_argument(
        "--subject-pattern",
        metavar="REGEX",
        help="where a path names the person, and the session: '(?P<subject>[FM]\\d+)_(?P<session>[AB])'",
    )
    parser.add_argument(
        "--split-pattern", metavar="REGEX", help="where it names the split: '/(?P<split>train|test)_'"
    )
    parser.add_argument("--source", metavar="NAME", help="name in the set (default: the folder's name)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: data/SOURCE.faces")
    parser.add_argument("--jobs", type=positive_int, default=os.cpu_count(), help="worker processes")
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="of a Dask scheduler whose workers do it, tcp://scheduler:8786"
    )
    return parser


def main(args):
    root = (download(args.dataset) if args.dataset else args.images).resolve()
    classes = check_classes(args.classes) if args.classes else None
    images, left_out = read_ferplus(root, args.labels) if args.labels else find_labelled_images(root, classes)
    images = apply_patterns(images, root, args.subject_pattern, args.split_pattern)
    source = args.source or args.dataset or root.name
    output = args.output or DATA / f"{source}{SUFFIX}"
    if output.suffix != SUFFIX:
        raise UserError(f"--output {output}: the name of a set ends in {SUFFIX}; name another")
    output.parent.mkdir(parents=True, exist_ok=True)
    extract(images, root, source, output, args.jobs, args.cluster)
    report(output, left_out)


def download(name: str) -> Path:
    """Return the folder of a Kaggle data set, downloaded or cached; raises UserError without either."""
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(DATASETS[name]))
    except Exception as error:  # requests, urllib3 and kagglehub raise a dozen unrelated types
        handle = DATASETS[name].rsplit("/versions")[0]
        raise UserError(
            f"can't download {handle} ({type(error).__name__}) and it is not cached; connect to the "
            f"internet, or unpack it by hand and run: "
            f"python scr/extract_landmarks.py --images DIR --source {name}"
        ) from error


def report(output: Path, left_out: Counter) -> None:
    """Print what was written and what was skipped, by reason."""
    data = load_face_set(output)
    skipped = left_out + Counter(data.missed.reason.tolist())
    counts = ", ".join(f"{name} {count}" for name, count in sorted(Counter(data.label.tolist()).items()))
    print(f"{relative(output)}: {len(data)} faces ({counts})")
    print("skipped: " + (", ".join(f"{count} {reason}" for reason, count in skipped.most_common()) or "none"))


if __name__ == "__main__":
    run_script(main, build_parser())
