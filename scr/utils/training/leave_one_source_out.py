"""Leaving sources out: what networks that never saw a source say about it, and the calibration that
follows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..data.face_set import FaceSet, concatenate
from ..data.splits import prefix_group, split_groups
from ..evaluation.metrics import (
    answer_threshold,
    evaluate_predictions,
    expected_calibration_error,
    with_missed,
)
from ..model.classifier import mix
from . import ensemble
from .networks import fit_temperature

ANSWERED_RIGHT_LEFT_OUT = 0.8
"""Share of the answers about sources left out that are to be right. At the .85 that is asked for on
validation parts a quarter would not be answered, and live labels would change twice as often."""
LARGE = 500
"""Faces from which a file-name prefix group is left out, too, in a source that has several."""


def join_sets(sets: Sequence[FaceSet]) -> tuple[FaceSet, list[tuple[slice, slice]]]:
    """Return one set of several, and where the faces and the missed pictures of each stand in it."""
    faces, missed = (np.cumsum([0, *counts]) for counts in (map(len, sets), [len(s.missed) for s in sets]))
    places = [
        (slice(*faces[number : number + 2]), slice(*missed[number : number + 2]))
        for number in range(len(sets))
    ]
    return concatenate(sets), places


def names_to_leave_out(data: FaceSet, together: Sequence[str]) -> list[str]:
    """Return each source, each file-name prefix group of `LARGE` faces or more (`affectnet/ffhq_*`) in a
    source that has several, and each of the groups of sources (`kdef+impa_face3d`) that are to be left out
    together."""
    names = []
    sources = sorted(set(data.source.tolist()))
    for source in sources:
        groups = Counter(prefix_group(path) for path in data.path[data.source == source].tolist())
        large = sorted(name for name, count in groups.items() if count >= LARGE)
        names += [source] * (len(sources) > 1)
        names += [f"{source}/{name}*" for name in large if len(large) > 1]
    return names + list(together)


def of_source(data: FaceSet, name: str, missed: bool = False) -> np.ndarray:
    """Return a mask of the faces, or the missed pictures, of what `names_to_leave_out` names."""
    table = data.missed if missed else data
    if "/" not in name:
        return np.isin(table.source, name.split("+"))
    source, _, wanted = name.removesuffix("*").partition("/")
    return np.array(
        [
            one == source and prefix_group(path) == wanted
            for one, path in zip(table.source.tolist(), table.path.tolist())
        ],
        bool,
    )


def only(data: FaceSet, name: str) -> FaceSet:
    """Return the faces and missed pictures of one source, group of sources or file-name prefix group."""
    return data.select(of_source(data, name), of_source(data, name, missed=True))


def without(data: FaceSet, name: str, groups: np.ndarray) -> FaceSet:
    """Return the faces that are neither of a source nor twins of its faces; groups (n,): numbers of
    `split_groups`."""
    out = of_source(data, name)
    twins = np.isin(groups, groups[out])
    return data.select(~out & ~twins, ~of_source(data, name, missed=True))


def measure(
    data: FaceSet,
    foreign: Sequence[FaceSet],
    network: str,
    recipe: ensemble.ModelRecipe,
    seeds: int,
    classes: Sequence[str],
    together: Sequence[str] = (),
    tell=lambda row: None,
) -> tuple[list[dict], dict]:
    """Return a row for each set asked about and part of the network, and the calibration; `tell` is given
    each row.

    data is split, and its crops, and those of the foreign sets, are maps if the network looks at crops.
    Without anything left out, the test part of each source and the foreign sets are asked about.
    """
    groups = split_groups(data)
    rows, pooled = [], {}
    for left_out in [None, *names_to_leave_out(data, together)]:
        seen = data if left_out is None else without(data, left_out, groups)
        if left_out is None:
            sources = sorted(set(data.source.tolist()))
            asked = [(name, "same source", only(data, name).part("test")) for name in sources]
            asked += [(", ".join(sorted(set(part.source.tolist()))), "foreign", part) for part in foreign]
        else:
            asked = [(left_out, "left out", only(data, left_out))]
        answers = [ask(seen, asked, network, recipe, seed, classes) for seed in range(seeds)]
        for number, (name, kind, part) in enumerate(asked):
            for way in answers[0][number]:
                probabilities = [answer[number][way] for answer in answers]
                rows.append(summarise(name, kind, way, part, probabilities, classes))
                tell(rows[-1])
            if kind == "left out" and "/" not in name and "+" not in name:
                label = np.tile(part.class_index(classes), seeds)
                pooled[name] = label, np.concatenate([answer[number][network] for answer in answers])
    return rows, calibrate(pooled) if len(pooled) > 1 else {}


def ask(seen: FaceSet, asked: list, network: str, recipe, seed: int, classes) -> list[dict[str, np.ndarray]]:
    """Return for each set asked about the probabilities (n, classes) by each part, and by the network, of
    one training.

    The network's are at a temperature of 1, as its parts give them.
    """
    model = replace(ensemble.train(network, seen, recipe, seed, classes), temperature=1.0)
    answers = []
    for _, _, part in asked:
        of_parts = {name: one.predict(part) for name, one in model.parts.items()}
        answers.append(of_parts | {network: model.predict(part)})
    return answers


def summarise(
    name: str, kind: str, way: str, part: FaceSet, probabilities: list[np.ndarray], classes: Sequence[str]
) -> dict:
    """Return means over seeds, and the 95% interval of the balanced accuracy: seeds and faces together."""
    label = part.class_index(classes)
    reports = [
        evaluate_predictions(*with_missed(label, answer, part.missed_index(classes)), classes)
        for answer in probabilities
    ]
    accuracy = np.array([report["balanced_accuracy"] for report in reports])
    of_faces = np.mean([np.diff(report["balanced_accuracy_interval"])[0] / 2 for report in reports])
    half = float(np.hypot(of_faces, 1.96 * accuracy.std(ddof=1) if len(accuracy) > 1 else 0.0))
    return {
        "source": name,
        "kind": kind,
        "network": way,
        "faces": len(part),
        "missed": len(part.missed),
        "recall": {
            one: float(np.mean([report["recall"][one][0] for report in reports]))
            for one in reports[0]["recall"]
        },
        "ece": float(np.mean([expected_calibration_error(label, answer) for answer in probabilities])),
        "balanced_accuracy": float(accuracy.mean()),
        "interval": [float(accuracy.mean() - half), float(accuracy.mean() + half)],
    }


def calibrate(pooled: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    """Return temperature and threshold from what was said of sources left out, each source weighing the same.

    pooled: labels (n,) and probabilities (n, classes) at a temperature of 1, by source. `sources` tells of
    each how it goes with the temperature and threshold of the *other* sources: what a source that was never
    seen can expect.
    """
    own = {
        name: fit_temperature(probabilities, label, None) for name, (label, probabilities) in pooled.items()
    }
    temperature, threshold = _fit(pooled, own)
    table = {}
    for name, (label, probabilities) in pooled.items():
        others = {other: pooled[other] for other in pooled if other != name}
        others_temperature, others_threshold = _fit(others, own)
        answers = mix([(1.0, probabilities)], others_temperature)
        answered = answers.max(axis=1) >= others_threshold
        right = answers.argmax(axis=1) == label
        table[name] = {
            "temperature": others_temperature,
            "threshold": others_threshold,
            "ece": expected_calibration_error(label, answers),
            "answered": float(answered.mean()),
            "right": float(right[answered].mean()) if answered.any() else 0.0,
            "right_if_always_answered": float(right.mean()),
        }
    mean = float(np.mean([row["ece"] for row in table.values()]))
    return {"temperature": temperature, "threshold": threshold, "mean_ece": mean, "sources": table}


def _fit(pooled: dict[str, tuple[np.ndarray, np.ndarray]], own: dict[str, float]) -> tuple[float, float]:
    """Return the median of the sources' own temperatures and the threshold of their pooled answers.

    The median, since one source with noisy labels (AffectNet's own temperature is twice the others') would
    make the answers about all others timid.
    """
    temperature = float(np.median([own[name] for name in pooled]))
    label = np.concatenate([label for label, _ in pooled.values()])
    answers = np.concatenate([mix([(1.0, answer)], temperature) for _, answer in pooled.values()])
    weight = np.concatenate([np.full(len(one), 1 / len(one)) for one, _ in pooled.values()])
    return temperature, answer_threshold(label, answers, ANSWERED_RIGHT_LEFT_OUT, weight)[0]
