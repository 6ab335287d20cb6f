"""What may be wrong with a labelled set: copies, contradicting labels, labels told without the face."""

from collections import Counter

import numpy as np

from ..config import SEED, UserError
from .classes import list_names
from .face_set import FaceSet
from .splits import find_duplicates, prefix_group

COPIES, CONTRADICTORY = "further copies of pictures", "pictures whose copies carry different labels"
SOURCE_WARNING = 0.10
"""Warn if the label is guessed without the face this much better (balanced accuracy) than by chance."""


def drop_duplicates(data: FaceSet) -> tuple[FaceSet, Counter]:
    """Return the set with one copy of each picture, and none of those whose copies carry different labels.

    Beside it, how many faces are left out, by reason; both are printed, too. Raises UserError if that leaves
    no face of a class.
    """
    first = find_duplicates(data)
    labels = Counter(number for number, _ in set(zip(first.tolist(), data.label.tolist())))
    contradictory = np.array([labels[number] > 1 for number in first.tolist()], bool)
    # A held-out copy is the one to keep: dropping it would move its twin's face into the training part.
    order = np.argsort(~np.isin(data.split, ("val", "test")), kind="stable")
    kept = np.zeros(len(data), bool)
    kept[order[np.unique(first[order], return_index=True)[1]]] = True
    print(
        f"duplicates: {(~kept).sum()} further copies of {len(data)} pictures; {contradictory.sum()} pictures "
        "dropped because their copies carry different labels"
    )
    example = ""
    for number in np.unique(first[contradictory])[:5]:
        rows = np.flatnonzero(first == number)[:3]
        example = " and ".join(f"{data.source[row]}/{data.path[row]} is {data.label[row]}" for row in rows)
        print(f"  {example}")
    left = data.select(kept & ~contradictory)
    if gone := sorted(set(data.label.tolist()) - set(left.label.tolist())):
        raise UserError(
            f"no face of {list_names(gone)} is left: all its pictures are there under two labels, such as "
            f"{example}; keep each in one class's folder, and extract again"
        )
    further = int((~kept).sum())
    return left, Counter({COPIES: further, CONTRADICTORY: len(data) - further - len(left)})


def guess_without_face(data: FaceSet) -> dict[str, float]:
    """Return how often the label is guessed right (cross-validated balanced accuracy) from each clue that is
    not the expression, by the clue's name; nothing where a class has a single face."""
    if min(Counter(data.label.tolist()).values()) < 2:
        return {}
    clues = {
        "the file name's prefix": _one_hot(prefix_groups(data)),
        "the picture's size": _one_hot(data.width * 100_000 + data.height),
        "the crop (place, size and tilt of the eyes)": _eye_geometry(data),
    }
    return {name: _predictability(values, data.label) for name, values in clues.items()}


def prefix_groups(data: FaceSet) -> np.ndarray:
    """Return the source and the file name's prefix of each face (n,) as text."""
    return np.array([f"{source}/{prefix_group(path)}*" for source, path in zip(data.source, data.path)])


def _one_hot(values: np.ndarray) -> np.ndarray:
    return (values[:, None] == np.unique(values)[None, :50]).astype(np.float32)


def _eye_geometry(data: FaceSet) -> np.ndarray:
    """Return (n, 4): middle of the outer eye corners, their distance and tilt, in which is no expression."""
    right, left = data.landmarks[:, [33, 263], :2].swapaxes(0, 1)
    across, middle = left - right, (left + right) / 2
    tilt = np.arctan2(across[:, 1], across[:, 0])
    return np.column_stack([middle, np.linalg.norm(across, axis=1), tilt])


def _predictability(values: np.ndarray, label: np.ndarray) -> float:
    """Return the cross-validated balanced accuracy of a shallow tree that sees only `values`."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    least = min(20, len(label) // 10 or 1)
    tree = DecisionTreeClassifier(
        max_depth=8, min_samples_leaf=least, class_weight="balanced", random_state=SEED
    )
    folds = StratifiedKFold(min(5, *Counter(label.tolist()).values()), shuffle=True, random_state=SEED)
    return float(cross_val_score(tree, values, label, scoring="balanced_accuracy", cv=folds).mean())
