"""Figures of merit. A picture on which no face was found counts as wrong: its prediction is `MISSED`."""

from collections.abc import Sequence

import numpy as np

MISSED = -1


def with_missed(
    label: np.ndarray, probabilities: np.ndarray, missed_label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (label, predicted) of faces (n,) and (n, classes), and of missed pictures (m,): both (n +
    m,)."""
    return (
        np.concatenate([label, missed_label]),
        np.concatenate([probabilities.argmax(axis=1), np.full(len(missed_label), MISSED)]),
    )


def wilson_interval(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a proportion (Wilson 1927), which holds for small counts and near 0 or 1."""
    from scipy.stats import binomtest  # comes with scikit-learn

    return tuple(map(float, binomtest(int(hits), int(total)).proportion_ci(confidence, method="wilson")))


def expected_calibration_error(label: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Return `calibration_error` of labels (n,) and probabilities (n, classes)."""
    return calibration_error(
        probabilities.max(axis=1, initial=0), probabilities.argmax(axis=1) == label, bins
    )


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017), from confidence and whether right (n,).

    That is the mean gap between confidence and accuracy over equal-width bins of confidence.
    """
    if len(right) == 0:
        return 0.0
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, right - confidence, bins)
    return float(np.abs(gap).sum() / len(right))


def confidence_threshold(
    label: np.ndarray, probabilities: np.ndarray, right: float, weight: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the lowest confidence from which at least a share `right` of the predictions are right, and
    the share of faces that reach it.

    label (n,), probabilities (n, classes), weight (n,) of each face (default: all the same). (1.0, 0.0) if no
    confidence will do; (0.0, 1.0) if all will: then nothing tells from where predictions would be wrong.
    """
    weight = np.ones(len(label)) if weight is None else weight
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    sure = weight[order].cumsum()
    hits = ((probabilities.argmax(axis=1) == label) * weight)[order].cumsum()
    is_last = np.append(np.diff(confidence[order]) != 0, True)  # of those of the same confidence
    enough = np.flatnonzero((hits / sure >= right) & is_last)
    if not len(enough):
        return 1.0, 0.0
    if enough[-1] == len(label) - 1:
        return 0.0, 1.0
    return float(confidence[order][enough[-1]]), float(sure[enough[-1]] / sure[-1])


def evaluate_predictions(label: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict:
    """Return accuracy, balanced accuracy with its 95% interval, macro-F1, the confusion matrix, and of each
    class recall with its interval, precision and F1.

    label and predicted (n,) are class indices, predicted may be `MISSED`. Balanced accuracy and macro-F1 are
    means over the classes that occur in `label`. The confusion matrix (classes, classes + 1) counts labels by
    predictions; its last column is 'no face'. Intervals of recalls are Wilson's, that of their mean is
    `mean_recall`'s.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    indices = range(len(classes))
    matrix = confusion_matrix(label, predicted, labels=[*indices, MISSED])[:-1]
    precision, recall, f1, total = precision_recall_fscore_support(
        label, predicted, labels=indices, zero_division=0
    )
    intervals = {i: wilson_interval(matrix[i, i], total[i]) for i in indices if total[i]}
    present = list(intervals)
    balanced, *interval = mean_recall(matrix.diagonal()[present], total[present])
    return {
        "faces": int(matrix[:, :-1].sum()),
        "missed": int(matrix[:, -1].sum()),
        "accuracy": float(matrix.trace() / matrix.sum()),
        "balanced_accuracy": balanced,
        "balanced_accuracy_interval": interval,
        "macro_f1": float(f1[present].mean()),
        "recall": {classes[i]: [float(recall[i]), *intervals[i]] for i in present},
        "precision": {classes[i]: float(precision[i]) for i in present},
        "f1": {classes[i]: float(f1[i]) for i in present},
        "confusion_matrix": matrix.tolist(),
    }


def mean_recall(hits: np.ndarray, total: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean of recalls and its interval; hits and total (classes,) count right and all predictions.

    The recalls' Wilson intervals are combined (MOVER, Zou and Donner 2008), so that it holds for few faces
    and stays within [0, 1].
    """
    recall = hits / total
    intervals = [wilson_interval(*counts, confidence) for counts in zip(hits, total)]
    below, above = np.sqrt(np.square(recall[:, None] - np.array(intervals)).sum(axis=0)) / len(recall)
    return float(recall.mean()), float(recall.mean() - below), float(recall.mean() + above)


def compare_recalls(
    hits: np.ndarray, total: np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return by how much the mean recall on some pictures is above that on others, and its interval (MOVER).

    hits and total: (2, classes), a row for each of the two, as for `mean_recall`.
    """
    (mean, low, high), (other, other_low, other_high) = map(mean_recall, hits, total, [confidence] * 2)
    below, above = np.hypot(mean - low, other_high - other), np.hypot(high - mean, other - other_low)
    return mean - other, mean - other - float(below), mean - other + float(above)


def confusions(matrix: list, classes: Sequence[str], most: int = 3) -> list[str]:
    """Return the largest confusions of a report as text, `wink is taken for kiss (7 of 20)`."""
    counts = np.array(matrix)[:, : len(classes)]
    total = counts.sum(axis=1)
    pairs = [pair for pair in zip(*np.nonzero(counts)) if pair[0] != pair[1]]
    pairs.sort(key=lambda pair: -counts[pair] / total[pair[0]])
    return [
        f"{classes[label]} is taken for {classes[other]} ({counts[label, other]} of {total[label]})"
        for label, other in pairs[:most]
    ]


def balanced_accuracy(label: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean recall of the classes that occur in label (n,), given scores of all, such as logits or
    probabilities (n, classes)."""
    from sklearn.metrics import recall_score

    predicted = scores.argmax(axis=1)
    return float(recall_score(label, predicted, labels=np.unique(label), average="macro", zero_division=0))


def compare_hits(label: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Return by how much the balanced accuracy of `after` is above that of `before`, and its 95% interval.

    label (n,) of any kind; before and after (n,) tell which predictions of two systems on the same pictures
    are right. The interval is that of paired proportions (Agresti and Min 2005: half a picture is added to
    each of the four cells), combined over the classes, which weigh the same.
    """
    difference, middle, variance = [], [], []
    for name in np.unique(label):
        of_class = label == name
        gained = (after & ~before)[of_class].sum() + 0.5
        lost = (before & ~after)[of_class].sum() + 0.5
        n = of_class.sum() + 2
        difference.append((gained - lost) / of_class.sum())
        middle.append((gained - lost) / n)
        variance.append((gained + lost - (gained - lost) ** 2 / n) / n**2)
    half = 1.96 * np.sqrt(np.sum(variance)) / len(variance)
    gain, around = float(np.mean(difference)), float(np.mean(middle))
    return gain, min(gain, around - float(half)), max(gain, around + float(half))


def format_report(report: dict, classes: Sequence[str]) -> str:
    """Return a report of `evaluate_predictions` as text for a terminal."""
    low, high = report["balanced_accuracy_interval"]
    lines = [
        f"pictures {report['faces'] + report['missed']}, of these no face found (counted as wrong): "
        f"{report['missed']}",
        f"accuracy {report['accuracy']:.3f}   balanced accuracy {report['balanced_accuracy']:.3f} "
        f"(95% {low:.3f} to {high:.3f})   macro-F1 {report['macro_f1']:.3f}",
    ]
    wide = max(8, *map(len, classes))
    lines.append(f"{'':>{wide + 2}} {'recall (95% interval)':<24}{'precision':>10}{'F1':>8}")
    lines += [
        f"{name:>{wide + 2}} {f'{value:.3f} ({low:.3f} to {high:.3f})':<24}"
        f"{report['precision'][name]:>10.3f}{report['f1'][name]:>8.3f}"
        for name, (value, low, high) in report["recall"].items()
    ]
    lines.append("confusion matrix (rows: label, columns: prediction)")
    lines.append(" " * (wide + 2) + "".join(f"{name:>{wide + 1}}" for name in (*classes, "no face")))
    lines += [
        f"{name:>{wide + 2}}" + "".join(f"{count:>{wide + 1}}" for count in row)
        for name, row in zip(classes, report["confusion_matrix"])
        if sum(row)
    ]
    return "\n".join(lines)
