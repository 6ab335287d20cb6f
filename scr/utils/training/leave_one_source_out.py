"""Figures of networks on sources that were left out of training, and the calibration that follows."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..config import UserError
from ..data.classes import list_names
from ..data.face_set import FaceSet, concatenate
from ..data.splits import prefix_group, split_groups
from ..evaluation.metrics import (
    confidence_threshold,
    evaluate_predictions,
    expected_calibration_error,
    with_missed,
)
from ..model.classifier import mix
from . import ensemble
from .networks import fit_temperature

RIGHT_LEFT_OUT = 0.8
"""Share of the predictions on sources left out that are to be right. At the .85 of validation parts a quarter
would be uncertain, and live labels would change twice as often."""
LARGE = 500
"""Faces from which a file-name prefix group is left out, too, in a source that has several."""


@dataclass(frozen=True)
class LeftOut:
    """What is left out: whole sources, or the file-name prefix group of one."""

    sources: tuple[str, ...]
    prefix: str | None = None

    def __str__(self) -> str:
        return "+".join(self.sources) if self.prefix is None else f"{self.sources[0]}/{self.prefix}*"

    def rows(self, table) -> np.ndarray:
        """Return a mask (n,) of the rows of a set, or of its missed pictures, that are left out."""
        found = np.isin(table.source, self.sources)
        if self.prefix is not None:
            found &= np.array([prefix_group(path) == self.prefix for path in table.path.tolist()], bool)
        return found

    def only(self, data: FaceSet) -> FaceSet:
        """Return the faces and missed pictures that are left out."""
        return data.select(self.rows(data), self.rows(data.missed))

    def without(self, data: FaceSet, groups: np.ndarray) -> FaceSet:
        """Return all others, without twins of a face left out; groups (n,): numbers of `split_groups`."""
        out = self.rows(data)
        return data.select(~np.isin(groups, groups[out]), ~self.rows(data.missed))


def choose_left_out(data: FaceSet, together: Sequence[str]) -> list[LeftOut]:
    """Return what to leave out in turn: each source; each file-name prefix group of `LARGE` faces or more in
    a source that has several; and the groups of sources that `together` names (`kdef+impa_face3d`).

    Raises UserError for a source that the set does not have.
    """
    sources, found = sorted(set(data.source.tolist())), []
    for source in sources:
        groups = Counter(prefix_group(path) for path in data.path[data.source == source].tolist())
        large = sorted(name for name, count in groups.items() if count >= LARGE)
        found += [LeftOut((source,))] * (len(sources) > 1)
        found += [LeftOut((source,), name) for name in large if len(large) > 1]
    return found + [LeftOut(_split_names(text, sources)) for text in together]


def _split_names(text: str, sources: Sequence[str]) -> tuple[str, ...]:
    """Return the sources that `A+B` names; a source's own name may have a + in it."""
    for source in sorted(sources, key=len, reverse=True):
        if text == source:
            return (source,)
        if text.startswith(f"{source}+"):
            return (source, *_split_names(text[len(source) + 1 :], sources))
    raise UserError(f"--together: no source {text} in --data, which has {list_names(sources)}")


def join_sets(sets: Sequence[FaceSet]) -> tuple[FaceSet, list[tuple[slice, slice]]]:
    """Return one set of several, and where the faces and the missed pictures of each stand in it."""
    faces, missed = (np.cumsum([0, *counts]) for counts in (map(len, sets), [len(s.missed) for s in sets]))
    numbers = range(len(sets))
    return concatenate(sets), [(slice(*faces[n : n + 2]), slice(*missed[n : n + 2])) for n in numbers]


@dataclass(frozen=True)
class Run:
    """What is trained in each round: a network by a recipe, with several seeds."""

    network: str
    recipe: ensemble.ModelRecipe
    seeds: int
    classes: tuple[str, ...]

    def predict(self, seen: FaceSet, parts: Sequence[FaceSet]) -> list[dict[str, list[np.ndarray]]]:
        """Train on a set; return for each part, and each network of the model, the probabilities (n, classes)
        of each seed, at a temperature of 1."""
        found = [{} for _ in parts]
        for seed in range(self.seeds):
            model = ensemble.train(self.network, seen, self.recipe, seed, self.classes)
            networks = model.parts | {self.network: replace(model, temperature=1.0)}
            for of_part, part in zip(found, parts):
                for name, network in networks.items():
                    of_part.setdefault(name, []).append(network.predict(part))
        return found


def measure(
    run: Run, data: FaceSet, foreign: Sequence[FaceSet], left_out: Sequence[LeftOut], pooled: dict
) -> Iterator[dict]:
    """Yield a row of figures for each part and each network of the model: first of the test part of each
    source and of the foreign sets, with nothing left out, then of what is left out in turn.

    data is split, and its crops, and those of the foreign sets, are maps if the network looks at crops.
    pooled gets the labels and probabilities of each whole source left out, for `calibrate`.
    """
    groups = split_groups(data)
    sources = [LeftOut((name,)) for name in sorted(set(data.source.tolist()))]
    parts = [(str(source), "same source", source.only(data).part("test")) for source in sources]
    parts += [(", ".join(sorted(set(part.source.tolist()))), "foreign", part) for part in foreign]
    rounds = [(None, parts), *[(out, [(str(out), "left out", out.only(data))]) for out in left_out]]
    for out, parts in rounds:
        seen = out.without(data, groups) if out else data
        predictions = run.predict(seen, [part for *_, part in parts])
        for (name, kind, part), by_network in zip(parts, predictions):
            for network, probabilities in by_network.items():
                yield summarise(name, kind, network, part, probabilities, run.classes)
            if out in sources:
                label = np.tile(part.class_index(run.classes), run.seeds)
                pooled[name] = label, np.concatenate(by_network[run.network])


def summarise(
    name: str, kind: str, network: str, part: FaceSet, probabilities: list[np.ndarray], classes: Sequence[str]
) -> dict:
    """Return means over seeds, and the 95% interval of the balanced accuracy: seeds and faces together."""
    label, missed = part.class_index(classes), part.missed_index(classes)
    reports = [evaluate_predictions(*with_missed(label, one, missed), classes) for one in probabilities]
    accuracy = np.array([report["balanced_accuracy"] for report in reports])
    mean, of_seeds = accuracy.mean(), 1.96 * accuracy.std(ddof=1) if len(accuracy) > 1 else 0.0
    low, high = np.mean([report["balanced_accuracy_interval"] for report in reports], axis=0)
    return {
        "source": name,
        "kind": kind,
        "network": network,
        "faces": len(part),
        "missed": len(part.missed),
        "recall": {
            one: float(np.mean([report["recall"][one][0] for report in reports]))
            for one in reports[0]["recall"]
        },
        "ece": float(np.mean([expected_calibration_error(label, one) for one in probabilities])),
        "balanced_accuracy": float(mean),
        "interval": [
            float(max(0, mean - np.hypot(mean - low, of_seeds))),
            float(min(1, mean + np.hypot(high - mean, of_seeds))),
        ],
    }


def calibrate(pooled: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    """Return temperature and threshold from predictions on sources left out, each source weighing the same.

    pooled: labels (n,) and probabilities (n, classes) at a temperature of 1, by source. `sources` tells of
    each how it goes with the temperature and threshold of the *other* sources: what a source that was never
    seen can expect. `sure` is the share of faces that reach the threshold; 0 if no confidence is right often
    enough.
    """
    own = {name: fit_temperature(probabilities, label) for name, (label, probabilities) in pooled.items()}
    temperature, threshold, sure = _fit(pooled, own)
    table = {}
    for name, (label, probabilities) in pooled.items():
        others = {other: pooled[other] for other in pooled if other != name}
        others_temperature, others_threshold, _ = _fit(others, own)
        scaled = mix([(1.0, probabilities)], others_temperature)
        answered = scaled.max(axis=1) >= others_threshold
        right = scaled.argmax(axis=1) == label
        table[name] = {
            "temperature": others_temperature,
            "threshold": others_threshold,
            "ece": expected_calibration_error(label, scaled),
            "answered": float(answered.mean()),
            "right": float(right[answered].mean()) if answered.any() else 0.0,
            "right_if_always_answered": float(right.mean()),
        }
    mean = float(np.mean([row["ece"] for row in table.values()]))
    return {
        "temperature": temperature,
        "threshold": threshold,
        "sure": sure,
        "mean_ece": mean,
        "sources": table,
    }


def _fit(
    pooled: dict[str, tuple[np.ndarray, np.ndarray]], own: dict[str, float]
) -> tuple[float, float, float]:
    """Return the median of the sources' own temperatures, the threshold of their pooled predictions, and the
    share of faces that reach it.

    The median, since one source with noisy labels (AffectNet's own temperature is twice the others') would
    make the predictions for all others timid.
    """
    temperature = float(np.median([own[name] for name in pooled]))
    label = np.concatenate([label for label, _ in pooled.values()])
    scaled = np.concatenate([mix([(1.0, one)], temperature) for _, one in pooled.values()])
    weight = np.concatenate([np.full(len(one), 1 / len(one)) for one, _ in pooled.values()])
    return temperature, *confidence_threshold(label, scaled, RIGHT_LEFT_OUT, weight)


def table_header(classes: tuple[str, ...]) -> str:
    """Return the head of the table in models/README.md."""
    names = ["source", "kind", "network", "pictures", "balanced accuracy", *classes, "ECE"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def format_row(row: dict, classes: tuple[str, ...]) -> str:
    """Return a row of the table in models/README.md; the ECE is that of the network as it was trained."""
    recalls = [f"{row['recall'][name]:.2f}" if name in row["recall"] else "" for name in classes]
    low, high = row["interval"]
    return (
        f"| {row['source']} | {row['kind']} | {row['network']} | {row['faces'] + row['missed']:,} | "
        f"{row['balanced_accuracy']:.3f} ({low:.3f}-{high:.3f}) | {' | '.join(recalls)} | {row['ece']:.3f} |"
    )


def format_calibration(calibration: dict) -> str:
    """Return how sure the network is of sources left out, with temperature and threshold of the other ones,
    as the table in models/README.md."""
    lines = [
        f"calibrated on sources left out: temperature {calibration['temperature']:.2f}, uncertain under "
        f"{calibration['threshold']:.2f}; mean ECE {calibration['mean_ece']:.3f}",
        "| source left out | ECE | not uncertain | of these right | right if none is uncertain |\n"
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['ece']:.3f} | {row['answered']:.0%} | {row['right']:.0%} | "
        f"{row['right_if_always_answered']:.0%} |"
        for name, row in calibration["sources"].items()
    ]
    return "\n".join(lines)
