"""Labelled pictures -> a landmark set (.npz): 478 3D points and 52 blendshapes of the largest face on each.

    python scr/extract_landmarks.py --dataset affectnet
    python scr/extract_landmarks.py --images data/fer2013 --labels data/fer2013/fer2013new.csv
    python scr/extract_landmarks.py --images data/photos

Each sub-folder is a class, whether it is named `happy` or `wink`; names of the usual emotions are unified
(`Joy` is `happy`).

Stopped (Ctrl-C, power cut) it goes on where it was: run the same command again.
"""

from utils.cli import add_share_flag, make_parser, positive_int, run_script

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

from utils.config import DATA, UserError, note, relative
from utils.data import cluster
from utils.data.classes import check_classes
from utils.data.extraction import CHUNK, count_done, extract
from utils.data.face_set import FaceSet, load_face_set, save_face_set
from utils.data.image_folder import apply_patterns, find_labelled_images, read_ferplus
from utils.files import atomic_path, writing

DATASETS = {"affectnet": "mstjebashazida/affectnet/versions/1", "fer2013": "msambare/fer2013/versions/1"}
"""Versions are pinned: an unpinned handle asks the network even when the files are cached."""


def build_parser():
    parser = make_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--dataset", choices=DATASETS, help="download this set through kagglehub, or use its cached copy"
    )
    what.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="a folder with a sub-folder for each class, with or without Train and Test above",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="CSV", help="FER+ votes (fer2013new.csv) instead of folder names"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="folders to take as classes, wherever they are (default: the known emotions and "
        "the folders beside them)",
    )
    parser.add_argument(
        "--subject-pattern",
        metavar="REGEX",
        help="where a picture's path names the person, and the session: "
        "'(?P<subject>[FM]\\d+)_(?P<session>[AB])'",
    )
    parser.add_argument(
        "--split-pattern", metavar="REGEX", help="where it names the split: '/(?P<split>train|test)_'"
    )
    parser.add_argument(
        "--source", metavar="NAME", help="name of the source in the landmark set (default: the folder's name)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="NPZ", help="landmark set to write (default: data/SOURCE.npz)"
    )
    parser.add_argument("--jobs", type=positive_int, default=os.cpu_count(), help="worker processes")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="let the workers of a Dask scheduler do it, such as tcp://scheduler:8786 "
        "(requirements-cluster.txt)",
    )
    add_share_flag(parser)
    return parser


def main(args):
    root = (download(args.dataset) if args.dataset else args.images).resolve()
    classes = check_classes(args.classes) if args.classes else None
    images, left_out = read_ferplus(root, args.labels) if args.labels else find_labelled_images(root, classes)
    images = apply_patterns(images, root, args.subject_pattern, args.split_pattern)
    source = args.source or args.dataset or root.name
    output = args.output or DATA / f"{source}.npz"
    with writing(output, "wait for its end, or choose another --output"):
        data = extract_to(output, images, root, source, args)
    report(output, data, left_out)


def extract_to(output: Path, images: list, root: Path, source: str, args) -> FaceSet:
    """Extract a set of faces, part by part, and write it; raises UserError if there is no face."""
    parts_dir = open_parts(output, images, root, source)
    if done := count_done(len(images), parts_dir):
        note(f"going on: {done} of {len(images)} pictures were done before")
    try:
        if args.cluster:
            cluster.extract_parts(images, root, source, parts_dir, args.cluster)
        data = extract(images, root, source, args.jobs, parts_dir)
    except KeyboardInterrupt:
        done = count_done(len(images), parts_dir)
        note(f"{done} of {len(images)} pictures are done; the same command goes on from there")
        raise
    if len(data) == 0:
        shutil.rmtree(parts_dir)
        raise UserError(
            f"no face on any of the {len(images)} pictures of {relative(root)}; check that they show faces"
        )
    save_face_set(output, data)
    data = load_face_set(
        output
    )  # lets go of the parts, whose crops stayed on disk: Windows deletes no file in use
    shutil.rmtree(parts_dir)
    return data


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


def open_parts(output: Path, images: list, root: Path, source: str) -> Path:
    """Return the folder for the parts of this very job; parts of another job (files changed since) are thrown
    away.
    """
    parts_dir = output.with_name(output.name + ".parts")
    listing = [
        (
            image.path.relative_to(root).as_posix(),
            image.label,
            image.split,
            image.subject,
            image.session,
            image.votes,
            image.path.stat().st_size,
            image.path.stat().st_mtime_ns,
        )
        for image in images
    ]
    job = hashlib.sha256(json.dumps([str(root), source, CHUNK, listing]).encode()).hexdigest()
    manifest = parts_dir / "job.sha256"
    if parts_dir.exists() and not (manifest.exists() and manifest.read_text() == job):
        note(f"the pictures changed since the last run: starting {relative(output)} afresh")
        shutil.rmtree(parts_dir)
    with atomic_path(manifest) as partial:
        partial.write_text(job)
    return parts_dir


def report(output: Path, data, left_out: Counter) -> None:
    """Print what was written and what was skipped, by reason."""
    skipped = left_out + Counter(data.missed_reason.tolist())
    counts = ", ".join(f"{name} {count}" for name, count in sorted(Counter(data.label.tolist()).items()))
    print(f"{relative(output)}: {len(data)} faces ({counts})")
    print("skipped: " + (", ".join(f"{count} {reason}" for reason, count in skipped.most_common()) or "none"))


if __name__ == "__main__":
    run_script(main, build_parser())
