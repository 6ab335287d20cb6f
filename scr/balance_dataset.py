"""Sets of faces -> one clean, balanced set: audited, without duplicates, split, with equal classes.

    python scr/balance_dataset.py
    python scr/balance_dataset.py --data data/affectnet.faces data/fer2013.faces --per-class 0

Writes OUTPUT.faces (all columns) and OUTPUT.txt (1404 features and the class index a line, for
numpy.loadtxt).
"""

from utils.cli import make_parser, run_script, seed, whole_number

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.config import DATA, SEED, relative
from utils.data.audit import SOURCE_WARNING, drop_duplicates, guess_without_face, prefix_groups
from utils.data.classes import choose_classes
from utils.data.face_set import SUFFIX, FaceSet, concatenate, load_face_set, save_face_set, save_txt
from utils.data.splits import assign_split


def build_parser():
    parser = make_parser(__doc__)
    sets, stem = [DATA / f"affectnet{SUFFIX}"], DATA / "dataset_Affectnet_balanced"
    parser.add_argument("--data", type=Path, nargs="+", default=sets, metavar="FILE", help="sets to merge")
    parser.add_argument("--output", type=Path, default=stem, metavar="STEM", help="where to write")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="classes to keep, in the order of their index "
        "(default: fear happy neutral sad, or all of a set without them)",
    )
    parser.add_argument("--per-class", type=whole_number, default=2500, help="most faces of a class; 0: all")
    parser.add_argument(
        "--keep-split", action="store_true", help="keep a source's own held-out folder as test part"
    )
    parser.add_argument("--seed", type=seed, default=SEED, help="seed of the split and the choice")
    return parser


def main(args):
    data = concatenate([load_face_set(path) for path in args.data])
    classes = choose_classes(data.label.tolist(), args.classes, ", ".join(map(relative, args.data)))
    data, _ = drop_duplicates(data.of_classes(classes))
    audit_sources(data)
    if not args.keep_split:
        data = data.with_split(np.full(len(data), ""), np.full(len(data.missed), ""))
    data = assign_split(data, args.seed, duplicate=np.arange(len(data)))  # one copy of each picture is left
    if args.per_class:
        data = balance(data, args.per_class, args.seed)
    output = args.output.with_suffix("") if args.output.suffix in (".txt", SUFFIX) else args.output
    save_txt(output.with_name(output.name + ".txt"), data, classes)
    save_face_set(output.with_name(output.name + SUFFIX), data)
    report(output, data, classes)


def audit_sources(data: FaceSet) -> None:
    """Print how labels spread over file-name prefixes, and how well they are told without the face."""
    groups = prefix_groups(data)
    counts = {name: Counter(data.label[groups == name].tolist()) for name in np.unique(groups).tolist()}
    classes = sorted(set(data.label.tolist()))
    wide = max(10, *(len(name) + 2 for name in classes))
    print("sources, by the prefix of the file name (rows) and label (columns):")
    print(" " * 28 + "".join(f"{name:>{wide}}" for name in classes))
    for name, count in sorted(counts.items(), key=lambda item: -item[1].total())[:12]:
        print(f"{name:>28}" + "".join(f"{count[label]:>{wide}}" for label in classes))
    scores = guess_without_face(data)
    if not scores:
        return
    chance = 1 / len(classes)
    print(
        f"how often the label is guessed right without a look at the face ({chance:.2f}, as by chance, is "
        "good; 1.00 is bad), by:\n" + "\n".join(f"  {name:<46}{score:.2f}" for name, score in scores.items())
    )
    if told := [name for name, score in scores.items() if score >= chance + SOURCE_WARNING]:
        print(
            f"WARNING: labels can be told from {' and '.join(told)}; a network may learn that instead of the "
            "expression: measure on another source (python scr/evaluate.py --images DIR)"
        )


def balance(data: FaceSet, per_class: int, seed: int) -> FaceSet:
    """Return at most `per_class` faces of each class. The training side gives first; validation and test keep
    theirs, unless they alone would take more than half of `per_class`.
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for label in sorted(set(data.label.tolist())):
        rows = generator.permutation(np.flatnonzero(data.label == label))
        train, held_out = rows[data.split[rows] == "train"], rows[data.split[rows] != "train"]
        room = max(per_class - len(held_out), per_class - per_class // 2)
        train = train[:room]
        chosen += [train, held_out[: per_class - len(train)]]
    return data.select(np.sort(np.concatenate(chosen)))


def report(output: Path, data: FaceSet, classes: Sequence[str]) -> None:
    """Print what was written."""
    for split in ("train", "val", "test"):
        counts = Counter(data.label[data.split == split].tolist())
        by_class = ", ".join(f"{name} {counts[name]}" for name in classes)
        print(f"{split:>6}: {counts.total():>6} faces ({by_class})")
    print(f"wrote {relative(output)}.txt and {SUFFIX}: {len(data)} faces")


if __name__ == "__main__":
    run_script(main, build_parser())
