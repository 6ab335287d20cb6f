"""How a network is trained: the recipes, and the run from landmark sets to a network. Stands on all other
modules.

Both `train_model.py` and `evaluate.py --leave-one-source-out` train by `train`, so what is judged is what
is shipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..config import DATA
from ..data.arrays import store
from ..data.face_set import FaceSet
from ..data.splits import class_source_weights, prefix_group
from ..evaluation.metrics import answer_threshold
from ..faces.features import fit_recipe, fit_reference, mirror_map
from ..files import scratch_folder
from . import networks, streams
from .streams import Features, blocks


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained; what a field costs or gains stands in
    models/README.md."""

    features: str
    layers: tuple[tuple[int, float, bool], ...]
    """(units, dropout, batch norm)"""
    learning_rate: float
    epochs: int
    batch_size: int
    patience: int = 0
    """epochs without a better validation loss before it stops; 0: a fixed number of epochs, the rate
    falling as a cosine"""
    blendshapes: bool = False
    """beside the points"""
    components: int = 0
    """principal components of the standardised features that the network sees; 0: the features themselves"""
    input_noise: float = 0.0
    """standard deviation of the noise on what the network sees"""
    weight_decay: float = 0.0
    balance_within_source: bool = False
    source_exponent: float = 1.0
    """a source weighs as its number of faces to this power; 0: all the same"""
    draw_by_weight: bool = False
    """batches are drawn by weight; else the weight multiplies the loss"""
    mirror: bool = False
    """each face also as its mirror image"""
    within_prefix_group: float = 0.0
    """share of the loss that asks a face only to be told from the classes of its file-name prefix group"""
    min_label_confidence: float = 0.0
    """label-noise filtering: faces whose label has a smaller out-of-fold confidence are left out"""
    networks: int = 1
    """trained side by side and folded into one wide network"""
    calibrate: bool = False
    """temperature scaling on the validation part"""


RECIPES = {
    # The README's first recipe, to the letter. At this rate it needs hundreds of epochs.
    "published": Recipe(
        "raw",
        ((1024, 0.5, True), (512, 0.5, True), (256, 0.4, True), (128, 0.3, False)),
        learning_rate=1e-5,
        epochs=500,
        batch_size=32,
        patience=15,
    ),
    # What limits is noise between sources, not capacity: aligned points say nothing about the crop, one
    # small layer sees their main components under strong noise, and no source may say anything about the
    # class.
    "default": Recipe(
        "aligned",
        ((128, 0.0, False),),
        learning_rate=1e-3,
        epochs=10,
        batch_size=256,
        blendshapes=True,
        components=250,
        input_noise=0.35,
        weight_decay=1e-3,
        balance_within_source=True,
        source_exponent=0.6,
        draw_by_weight=True,
        mirror=True,
        within_prefix_group=0.3,
        min_label_confidence=0.1,
        networks=5,
        calibrate=True,
    ),
}

BLENDSHAPE_WEIGHT = 23.0
"""Of a blendshape's own range [0, 1] against a standardised coordinate, before the principal components
are taken."""
PROJECTED_FACES = 8000
"""That the principal components are taken from."""
ANSWERED_RIGHT = 0.85
"""Share of the answers that must be right where the network is sure enough to answer."""
ENOUGH_TO_FILTER = 2000
"""Faces that it takes for networks that see three quarters of them to know a wrong label from a rare
face."""
PREFIX_GROUP_SHARE = 0.02
"""A class is one of a file-name prefix group's if it has at least this share of its faces."""


@dataclass(frozen=True)
class Trained:
    """A network with all that it takes to use and to describe it."""

    network: object
    scaler: object
    features: dict
    history: dict[str, list[float]]
    temperature: float
    threshold: float
    """confidence from which at least `ANSWERED_RIGHT` of the validation answers are right; 0 if it was
    not asked for"""
    dropped: int
    """faces that label-noise filtering left out"""
    classes: tuple[str, ...]

    def predict(self, data: FaceSet) -> np.ndarray:
        """Return the probabilities (n, classes) of a landmark set."""
        chunks = Features(data, self.features).chunks()
        answers = [networks.predict_network(self.network, standardise(self.scaler, x)) for x in chunks]
        return np.concatenate([np.empty((0, len(self.classes)), np.float32), *answers])


def train(
    train_part: FaceSet,
    val_part: FaceSet,
    recipe: Recipe,
    seed: int,
    classes: Sequence[str],
    progress: bool = True,
) -> Trained:
    """Return a network trained on one part and stopped or calibrated on another.

    Scaler, reference and components are fitted on the training part. The same seed gives the same weights.
    """
    networks.set_seed(seed)
    dropped = 0
    if recipe.min_label_confidence and len(train_part) >= ENOUGH_TO_FILTER:
        kept = out_of_fold_confidence(train_part, recipe, seed, classes) >= recipe.min_label_confidence
        dropped = int((~kept).sum())
        train_part = train_part.select(kept)
    features = fit_recipe(
        recipe.features, train_part.landmarks, recipe.blendshapes and has_blendshapes(train_part)
    )
    partner = _mirror_map(train_part, features.get("reference")) if recipe.mirror else None
    stream, stream_val = Features(train_part, features, partner), Features(val_part, features)
    copies = len(stream) // len(train_part)
    scaler = streams.fit_scaler(stream)
    projection = None
    if recipe.components:
        some = np.random.default_rng(seed).permutation(len(stream))[:PROJECTED_FACES]
        projection = fit_projection(standardise(scaler, stream.read(some)), scaler, features, recipe)

    def seen(features: Features):
        standardised = (standardise(scaler, x) for x in features.chunks())
        # Projected once, not in every step: the projection becomes a layer when the networks are assembled.
        return standardised if projection is None else (x @ projection for x in blocks(standardised))

    with scratch_folder(DATA) as folder:
        train_data = store(folder / "train", seen(stream)), *targets(train_part, recipe, classes, copies)
        val_data = np.concatenate(list(seen(stream_val))), *targets(val_part, recipe, classes)
        members = [
            networks.build_network(
                train_data[0].shape[1], len(classes), recipe.layers, recipe.input_noise, recipe.weight_decay
            )
            for _ in range(recipe.networks)
        ]
        history = networks.fit_networks(
            members,
            train_data,
            val_data,
            recipe.learning_rate,
            recipe.epochs,
            recipe.batch_size,
            recipe.patience,
            recipe.within_prefix_group,
            seed if recipe.draw_by_weight else None,
            progress,
        )
    network = networks.assemble(members, projection)
    trained = Trained(network, scaler, features, history, 1.0, 0.0, dropped, tuple(classes))
    if not recipe.calibrate:
        return trained
    index = val_part.class_index(classes)
    temperature = fit_temperature(trained.predict(val_part), index)
    networks.divide_logits(network, temperature)
    threshold, _ = answer_threshold(index, trained.predict(val_part), ANSWERED_RIGHT)
    return replace(trained, temperature=temperature, threshold=threshold)


def has_blendshapes(data: FaceSet) -> bool:
    """Tell whether a set has blendshapes; one read from `.txt` has none."""
    return bool(data.blendshapes.any(axis=1).all())


def _mirror_map(data: FaceSet, reference: list | None) -> np.ndarray:
    """Return the `mirror_map` of the mean face, reference (468, 3) where it is known."""
    if reference is None:
        reference = fit_reference(data.landmarks)
    return mirror_map(np.array(reference))


def extend_scaler(scaler, count: int, scale: float):
    """Return a copy of a scaler for features and `count` further numbers, which are divided by `scale`."""
    import copy

    extended = copy.deepcopy(scaler)
    extended.mean_ = np.concatenate([scaler.mean_, np.zeros(count)])
    extended.scale_ = np.concatenate([scaler.scale_, np.full(count, np.float64(np.float32(scale)))])
    extended.var_ = np.square(extended.scale_)
    extended.n_features_in_ = len(extended.mean_)
    return extended


def standardise(scaler, x: np.ndarray) -> np.ndarray:
    """Return standardised features (n, d) float32."""
    return scaler.transform(x).astype(np.float32)


def fit_projection(x: np.ndarray, scaler, features: dict, recipe: Recipe) -> np.ndarray:
    """Return the matrix (d, components) onto the principal components of standardised features (n, d).

    Standardised, a blendshape that hardly ever moves is as loud as a smile: they are taken by their own
    size again, all of them together about as strong as the coordinates.
    """
    weight = np.ones(x.shape[1])
    if features["blendshapes"]:
        weight[features["points"] * 3 :] = BLENDSHAPE_WEIGHT * scaler.scale_[features["points"] * 3 :]
    weighted = x * weight
    vectors = np.linalg.eigh(weighted.T @ weighted)[1][:, ::-1][:, : recipe.components]
    return (weight[:, None] * vectors).astype(np.float32)


def targets(data: FaceSet, recipe, classes: Sequence[str], copies: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return (target, weight): target (n, 2 * classes), the label one-hot, then 1 for each class of the
    face's file-name prefix group.

    copies: how often all faces stand one after the other, each a face of its own. A label outside its
    group's classes, and a group with one class, are told from all classes.
    """
    index = np.tile(data.class_index(classes), copies)
    one_hot = np.eye(len(classes), dtype=np.float32)[index]
    of_group = np.ones_like(one_hot)
    names = np.array(
        [f"{source}/{prefix_group(path)}" for source, path in zip(data.source.tolist(), data.path.tolist())]
    )
    group = np.tile(np.unique(names, return_inverse=True)[1], copies)
    counts = np.zeros((group.max(initial=0) + 1, len(classes)), np.int64)
    np.add.at(counts, (group, index), 1)
    held = counts >= PREFIX_GROUP_SHARE * counts.sum(axis=1, keepdims=True)
    told = (held.sum(axis=1) > 1)[group] & held[group, index]
    of_group[told] = held[group[told]]
    label, source = np.tile(data.label, copies), np.tile(data.source, copies)
    weight = class_source_weights(label, source if recipe.balance_within_source else np.full(len(source), ""))
    if recipe.source_exponent != 1:
        for name in np.unique(source):
            rows = source == name
            weight[rows] *= rows.sum() ** recipe.source_exponent / weight[rows].sum()
        weight *= len(weight) / weight.sum()
    return np.concatenate([one_hot, of_group], axis=1), weight


def out_of_fold_confidence(
    data: FaceSet, recipe: Recipe, seed: int, classes: Sequence[str], folds: int = 4
) -> np.ndarray:
    """Return the probability (n,) that a network trained on the other folds gives to each face's own
    label."""
    small = replace(
        recipe,
        min_label_confidence=0.0,
        networks=1,
        mirror=False,
        calibrate=False,
        components=150,
        input_noise=0.5,
    )
    fold = np.random.default_rng(seed).permutation(len(data)) % folds
    probability = np.empty(len(data))
    for number in range(folds):
        asked = data.select(fold == number)
        trained = train(data.select(fold != number), asked, small, seed, classes, progress=False)
        own = asked.class_index(classes)
        probability[fold == number] = trained.predict(asked)[np.arange(len(asked)), own]
    return probability


def fit_temperature(probabilities: np.ndarray, index: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Return the temperature that gives validation labels the greatest likelihood (Guo et al. 2017), .3 to 3.

    probabilities (n, classes), index (n,) the labels'. Faces weigh as they come, unless a weight (n,) is
    given, not balanced: a confidence is to be right about the faces that there are.
    """
    logits = np.log(np.maximum(probabilities, 1e-9))
    best = (np.inf, 1.0)
    for temperature in np.linspace(0.3, 3.0, 136):
        scaled = logits / temperature
        log_likelihood = scaled[np.arange(len(index)), index] - np.log(np.exp(scaled).sum(axis=1))
        best = min(best, (-np.average(log_likelihood, weights=weight), float(temperature)))
    return best[1]
