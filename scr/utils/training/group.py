"""Fine-tuning a bundle for a group: from a maker's set to what was gained there and lost elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError, relative
from ..data.classes import choose_classes, list_names
from ..data.face_set import FaceSet, split_groups
from ..evaluation.answers import Pictures, Predictions, of_probabilities
from ..model import bundle
from . import ensemble, networks
from .base import Base, find_general
from .fine_tuning import PULL, Elsewhere, FineTuned, LastLayer, fine_tune_layer, make_folds

LEAST_OF_CLASS = 10
"""Pictures of a class that it takes: fewer leave none to hold out."""


@dataclass(frozen=True)
class Result:
    """A fine-tuned layer; what it and the base answer to the part held out, and their reports elsewhere."""

    tuned: FineTuned
    learned: int
    before: Predictions
    after: Predictions
    elsewhere: tuple[dict, dict] | None

    @property
    def is_better(self) -> bool:
        """Tell whether cross-validation shows a gain, and the part held out, looked at once, no loss."""
        was, now = (one.figures()["all"]["balanced_accuracy"] for one in (self.before, self.after))
        return self.tuned.share > 0 and now >= was

    def describe(self, base: Base, seed: int) -> dict:
        """Return what the bundle says about the model."""
        threshold = round(self.tuned.threshold, 3)
        reports = {"base": self.before.figures()["all"], "test": self.after.figures()["all"]}
        if self.elsewhere:
            reports["elsewhere"] = dict(zip(("before", "after"), self.elsewhere))
        return base.info | {
            "threshold": threshold,
            "parts": base.info.get("parts", {}) | {"landmarks": {"threshold": threshold}},
            "recipe": "fine-tuned: last layer",
            "base": base.info["sha256"][f"{bundle.NAME}.keras"],
            "training": {"seed": seed, "pull": PULL, "share": self.tuned.share},
            "metrics": reports,
        }


def choose_faces(data: FaceSet, folder: Path, wanted: Sequence[str] | None, where: str) -> FaceSet:
    """Return the faces of a set, named by `where`, that the model in a folder can be fine-tuned on.

    Those are of the classes `wanted`, by default of all that the model has. Raises UserError for classes that
    it lacks, too few pictures, a set without crops where it needs them, and a crop network alone.
    """
    info = bundle.load_info(folder)
    network, known = bundle.network_of(info), info["classes"]
    if network == "crop":
        raise UserError(
            f"{relative(folder)} is a crop network alone; --base takes a hybrid or landmark model"
        )
    ensemble.require_crops(data, network)
    shared = [name for name in known if (data.label == name).any()]
    if len(shared) < 2:
        raise UserError(
            f"{where} holds {list_names(sorted(set(data.label.tolist())))}, and {relative(folder)} reads "
            f"{list_names(known)}: no two in common; leave out --base"
        )
    classes = choose_classes(data.label.tolist(), wanted or shared, where)
    if unknown := [name for name in classes if name not in known]:
        raise UserError(
            f"{relative(folder)} reads {list_names(known)}, not {list_names(unknown)}; leave out --base"
        )
    if few := [name for name in classes if (data.label == name).sum() < LEAST_OF_CLASS]:
        raise UserError(
            f"fewer than {LEAST_OF_CLASS} faces of {list_names(few)} in {where}: too few to hold any out; "
            "add some (python scr/extract_landmarks.py --help), or leave them out: --classes"
        )
    return data.of_classes(classes)


def open_elsewhere(path: Path | None, base: Base) -> tuple[Elsewhere | None, str]:
    """Return the faces on which forgetting is measured, or None and why, as `find_general` finds them."""
    general, problem = find_general(path, base)
    if problem:
        return None, problem
    classes = tuple(base.info["classes"])
    hidden = networks.last_hidden(base.network, base.seen(general))
    return Elsewhere(hidden, general.class_index(classes), general.missed_index(classes), classes), ""


def fine_tune(
    base: Base, data: FaceSet, elsewhere: Elsewhere | None, max_forgetting: float, seed: int
) -> Result:
    """Fine-tune the last layer of the base's network, in place, on the parts of a set that are not `test`."""
    classes = tuple(base.info["classes"])
    learned, test = data.select(data.split != "test", slice(0, 0)), data.part("test")
    start = LastLayer(*base.network.layers[-1].get_weights())
    hidden = networks.last_hidden(base.network, base.seen(learned))
    fold = make_folds(split_groups(learned), seed)
    label = learned.class_index(classes)
    tuned = fine_tune_layer(start, hidden, label, learned.source, fold, elsewhere, max_forgetting)
    pictures, asked = Pictures.of_set(test), networks.last_hidden(base.network, base.seen(test))
    before, after = (
        of_probabilities(name, classes, pictures, ensemble.softmax(layer.logits(asked)))
        for name, layer in (("base", start), ("fine-tuned", tuned.layer))
    )
    base.network.layers[-1].set_weights([tuned.layer.kernel, tuned.layer.bias])
    reports = (elsewhere.report(start), elsewhere.report(tuned.layer)) if elsewhere else None
    return Result(tuned, len(learned), before, after, reports)
