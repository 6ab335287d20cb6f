"""Figures of a model on sources that were left out of training, and the mix and calibration that follow.

Several sources may be left out in one round: fewer trainings, and a harder question.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..config import EMOTIONS, UserError, note
from ..data.classes import list_names
from ..data.face_set import FaceSet, concatenate
from ..data.splits import split_groups
from ..evaluation.metrics import (
    balanced_accuracy,
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
SHARES = np.round(np.arange(0, 0.55, 0.05), 2)
"""Of the landmark network in a hybrid, that are tried."""
NOISE = 0.005
"""A gain in mean balanced accuracy under which the recipe's own share stays."""


@dataclass(frozen=True)
class LeftOut:
    """Faces of one source, and what models that never saw it predict of them.

    parts: probabilities (n, classes) of each part of the model, one array for each seed.
    """

    source: str
    kind: str
    label: np.ndarray
    missed: np.ndarray
    parts: dict[str, list[np.ndarray]]

    def mixed(self, weights: dict[str, float]) -> "LeftOut":
        """Return the same with the mix of the parts as a further part, `hybrid`."""
        seeds = zip(*(self.parts[name] for name in weights))
        hybrid = [mix(list(zip(weights.values(), probabilities))) for probabilities in seeds]
        return replace(self, parts=self.parts | {"hybrid": hybrid})

    def narrowed(self, classes: Sequence[str], vocabulary: Sequence[str]) -> "LeftOut":
        """Return its faces of a vocabulary, a part of `classes`, and the probabilities among these."""
        columns = [classes.index(name) for name in vocabulary]
        rows, missed = np.isin(self.label, columns), np.isin(self.missed, columns)
        place = np.full(len(classes), -1)
        place[columns] = np.arange(len(columns))
        parts = {
            name: [mix([(1.0, one[rows][:, columns])]) for one in seeds] for name, seeds in self.parts.items()
        }
        return replace(self, label=place[self.label[rows]], missed=place[self.missed[missed]], parts=parts)


def choose_rounds(sources: Sequence[str], together: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the sources to leave out in each round: those that `together` names (`kdef+impa_face3d`), then
    each other one alone.

    Raises UserError for a source that there is not, and if a round would leave nothing.
    """
    rounds = [_split_names(text, sources) for text in together]
    rounds += [(name,) for name in sources if not any(name in one for one in rounds)]
    if max(len(set(one)) for one in rounds) == len(set(sources)):
        raise UserError("leaving one source out needs another to train on; name more sets with --data")
    return rounds


def _split_names(text: str, sources: Sequence[str]) -> tuple[str, ...]:
    """Return the sources that `A+B` names; a source's own name may have a + in it."""
    for source in sorted(sources, key=len, reverse=True):
        if text == source:
            return (source,)
        if text.startswith(f"{source}+"):
            return (source, *_split_names(text[len(source) + 1 :], sources))
    raise UserError(f"--together: no source {text} in --data, which has {list_names(sources)}")


def vocabularies(classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the lists of classes that a model of `classes` is read with: all, and the four `EMOTIONS`."""
    return [tuple(classes)] + [EMOTIONS] * (set(EMOTIONS) < set(classes))


@dataclass(frozen=True)
class Run:
    """What is trained in each round: a network by a recipe, with several seeds."""

    network: str
    recipe: ensemble.ModelRecipe
    seeds: int
    classes: tuple[str, ...]

    def predict(self, seen: FaceSet, asked: Sequence[FaceSet]) -> list[dict[str, list[np.ndarray]]]:
        """Train on a set; return for each of the sets asked about the probabilities of each part and seed."""
        found = [{} for _ in asked]
        for seed in range(self.seeds):
            model = ensemble.train(self.network, seen, self.recipe, seed, self.classes)
            for of_set, data in zip(found, asked):
                for name, part in model.parts.items():
                    of_set.setdefault(name, []).append(part.predict(data))
        return found

    def all_rounds(self, data: FaceSet, foreign: Sequence[FaceSet], together: Sequence[str]) -> list[LeftOut]:
        """Return each source when it was left out, then the foreign sets by the models of all rounds.

        data is split. Twins of a face left out, and other faces of its person, are left out, too.
        """
        rounds = choose_rounds(np.unique(data.source).tolist(), together)
        for part in (data, *foreign):
            ensemble.require_crops(part, self.network)
        groups, found, of_foreign = split_groups(data), [], [{} for _ in foreign]
        # One set, so that the backbone's maps are computed once for all rounds.
        ends = np.cumsum([0, len(data), *map(len, foreign)])
        with ensemble.maps_of(concatenate([data, *foreign]), self.network) as whole:
            data, *others = (
                replace(whole.select(slice(start, end)), missed=part.missed)
                for start, end, part in zip(ends, ends[1:], [data, *foreign])
            )
            for out in rounds:
                note(f"without {' and '.join(out)}:")
                rows = np.isin(data.source, out)
                seen = data.select(~np.isin(groups, groups[rows]), ~np.isin(data.missed.source, out))
                left = [data.select(data.source == name, data.missed.source == name) for name in out]
                predictions = self.predict(seen, [*left, *others])
                found += [
                    self._left_out(name, "left out", part, one)
                    for name, part, one in zip(out, left, predictions)
                ]
                for collected, by_part in zip(of_foreign, predictions[len(left) :]):
                    for name, seeds in by_part.items():
                        collected.setdefault(name, []).extend(seeds)
        return found + [
            self._left_out(", ".join(np.unique(part.source)), "foreign", part, one)
            for part, one in zip(foreign, of_foreign)
        ]

    def _left_out(self, name: str, kind: str, part: FaceSet, found: dict) -> LeftOut:
        return LeftOut(name, kind, part.class_index(self.classes), part.missed_index(self.classes), found)


def choose_weights(
    found: Sequence[LeftOut], classes: Sequence[str], usual: dict[str, float]
) -> tuple[dict[str, float], dict]:
    """Return the weights of landmark and crop network that read sources left out best, and the mean balanced
    accuracy by the share of the landmark network.

    The `usual` weights stay unless others gain more than noise. Each source is judged among the classes that
    its labels have.
    """
    own = [one.narrowed(classes, [name for i, name in enumerate(classes) if i in one.label]) for one in found]
    means = {}
    for share in SHARES.tolist():
        weights = {"landmarks": share, "crop": 1 - share}
        scores = [balanced_accuracy(one.label, p) for one in own for p in one.mixed(weights).parts["hybrid"]]
        means[share] = float(np.mean(scores))
    best = max(means, key=means.get)
    if means[best] - means[usual["landmarks"]] < NOISE:
        return usual, means
    return {"landmarks": best, "crop": round(1 - best, 2)}, means


def surest_mistakes(one: LeftOut, network: str, classes: Sequence[str], most: int = 48) -> dict[int, str]:
    """Return what the first seed is wrong about, the surest first: rows of the source, and label and
    prediction as text."""
    probabilities = one.parts[network][0]
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    rows = order[predicted[order] != one.label[order]][:most]
    return {
        row: f"{classes[one.label[row]]}: {classes[predicted[row]]} {confidence[row]:.0%}"
        for row in rows.tolist()
    }


def summarise(one: LeftOut, network: str, classes: Sequence[str]) -> dict:
    """Return means over seeds for a part, and the 95% interval of the balanced accuracy: seeds and faces
    together."""
    seeds = one.parts[network]
    reports = [evaluate_predictions(*with_missed(one.label, p, one.missed), classes) for p in seeds]
    accuracy = np.array([report["balanced_accuracy"] for report in reports])
    mean, of_seeds = accuracy.mean(), 1.96 * accuracy.std(ddof=1) if len(accuracy) > 1 else 0.0
    low, high = np.mean([report["balanced_accuracy_interval"] for report in reports], axis=0)
    return {
        "source": one.source,
        "kind": one.kind,
        "network": network,
        "classes": list(classes),
        "faces": len(one.label),
        "missed": len(one.missed),
        "recall": {
            name: float(np.mean([report["recall"][name][0] for report in reports]))
            for name in reports[0]["recall"]
        },
        "ece": float(np.mean([expected_calibration_error(one.label, p) for p in seeds])),
        "balanced_accuracy": float(mean),
        "interval": [
            float(max(0, mean - np.hypot(mean - low, of_seeds))),
            float(min(1, mean + np.hypot(high - mean, of_seeds))),
        ],
    }


def calibrate(found: Sequence[LeftOut], network: str) -> dict:
    """Return temperature and threshold from predictions on sources left out, each source weighing the same.

    `sources` tells of each how it goes with the temperature and threshold of the *other* sources: what a
    source that was never seen can expect. `sure` is the share of faces that reach the threshold; 0 if no
    confidence is right often enough.
    """
    pooled = {
        one.source: (np.tile(one.label, len(one.parts[network])), np.concatenate(one.parts[network]))
        for one in found
    }
    own = {name: fit_temperature(probabilities, label) for name, (label, probabilities) in pooled.items()}
    temperature, threshold, sure = _fit(pooled, own)
    table = {}
    for name, (label, probabilities) in pooled.items():
        others = {other: pooled[other] for other in pooled if other != name}
        others_temperature, others_threshold, _ = _fit(others or pooled, own)
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
    return {
        "temperature": temperature,
        "threshold": threshold,
        "sure": sure,
        "mean_ece": float(np.mean([row["ece"] for row in table.values()])),
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


def report(
    found: Sequence[LeftOut], network: str, classes: Sequence[str], usual_weights: dict[str, float]
) -> dict:
    """Print the tables of models/README.md, and return figures, weights and calibrations to be written.

    For each vocabulary: a row for each source and part, the mean over the sources left out, and the
    calibration.
    """
    left_out, written = [one for one in found if one.kind == "left out"], {"classes": list(classes)}
    if network == "hybrid":
        written["weights"], means = choose_weights(left_out, classes, usual_weights)
        print("share of the landmark network in the mix, and mean balanced accuracy on sources left out:")
        print("  ".join(f"{share:.2f}: {mean:.3f}" for share, mean in means.items()))
        found = [one.mixed(written["weights"]) for one in found]
        left_out = [one for one in found if one.kind == "left out"]
    written["mistakes"] = {one.source: surest_mistakes(one, network, classes) for one in left_out}
    written["rows"], written["vocabularies"] = [], []
    for vocabulary in vocabularies(classes):
        narrowed = [one.narrowed(classes, vocabulary) for one in found]
        rows = [summarise(one, name, vocabulary) for one in narrowed for name in one.parts]
        print(format_table(rows, network, vocabulary))
        judged = [one for one in narrowed if one.kind == "left out"]
        calibration = calibrate(judged, network)
        print(format_calibration(calibration))
        written["rows"] += rows
        if not calibration["sure"]:
            print("no confidence is right often enough: no calibration")
        elif vocabulary == tuple(classes):
            written["calibration"] = calibration
        else:
            written["vocabularies"].append({"classes": list(vocabulary)} | calibration)
    return written


def format_table(rows: Sequence[dict], network: str, classes: Sequence[str]) -> str:
    """Return the table of models/README.md; the ECE is that of the network as it was trained."""
    names = ["source", "kind", "network", "pictures", "balanced accuracy", *classes, "ECE"]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in rows:
        recalls = [f"{row['recall'][name]:.2f}" if name in row["recall"] else "" for name in classes]
        low, high = row["interval"]
        lines.append(
            f"| {row['source']} | {row['kind']} | {row['network']} | {row['faces'] + row['missed']:,} | "
            f"{row['balanced_accuracy']:.3f} ({low:.3f}-{high:.3f}) | {' | '.join(recalls)} | "
            f"{row['ece']:.3f} |"
        )
    whole = [
        row["balanced_accuracy"]
        for row in rows
        if row["kind"] == "left out" and row["network"] == network and len(row["recall"]) == len(classes)
    ]
    lines.append(
        f"mean of {len(whole)} sources left out that have all {len(classes)} classes: {np.mean(whole):.3f}"
    )
    return "\n".join(lines)


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
