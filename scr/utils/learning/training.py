"""How a network is trained: the recipes, and the run from landmark sets to a network. Stands on all other
modules.

Both `train_model.py` and `evaluate.py --leave-one-source-out` train by `train`, so what is judged is what
is shipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.data.dataset import LandmarkSet, class_source_weights, concatenate, prefix_group
from utils.faces.features import (
    MESH_POINTS,
    compute_features,
    fit_recipe,
    fit_reference,
    mirror_faces,
    mirror_map,
)
from utils.learning import networks
from utils.learning.metrics import answer_threshold


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

    def predict(self, data: LandmarkSet) -> np.ndarray:
        """Return the probabilities (n, classes) of a landmark set."""
        return networks.predict_network(self.network, network_input(data, self.features, self.scaler))


def train(
    train_part: LandmarkSet,
    val_part: LandmarkSet,
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
    if recipe.mirror:
        train_part = with_mirror_images(train_part, features.get("reference"))
    x = compute_features(train_part.landmarks, train_part.blendshapes, features)
    if recipe.features == "aligned" and (neutral := train_part.label == "neutral").any():
        features["neutral"] = x[neutral].mean(axis=0).round(5).tolist()
    scaler = fit_scaler(x)
    x = standardise(scaler, x)
    projection = fit_projection(x, scaler, features, recipe, seed)
    x_val = network_input(val_part, features, scaler)
    # Projected once, not in every step: the projection becomes a layer when the networks are assembled.
    seen, seen_val = (x, x_val) if projection is None else (x @ projection, x_val @ projection)
    train_data = seen, *targets(train_part, recipe, classes)
    val_data = seen_val, *targets(val_part, recipe, classes)

    members = [
        networks.build_network(
            seen.shape[1], len(classes), recipe.layers, recipe.input_noise, recipe.weight_decay
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
    temperature, threshold = 1.0, 0.0
    if recipe.calibrate:
        temperature = fit_temperature(networks.predict_network(network, x_val), val_part.class_index(classes))
        networks.divide_logits(network, temperature)
        threshold, _ = answer_threshold(
            val_part.class_index(classes), networks.predict_network(network, x_val), ANSWERED_RIGHT
        )
    return Trained(network, scaler, features, history, temperature, threshold, dropped, tuple(classes))


def network_input(faces, features: dict, scaler) -> np.ndarray:
    """Return what a network sees, standardised features (n, d) float32, of faces: any object with
    landmarks and blendshapes."""
    return standardise(scaler, compute_features(faces.landmarks, faces.blendshapes, features))


def mean_neutral(features: dict, scaler) -> np.ndarray | None:
    """Return the mean neutral face of a feature recipe as a network sees it, (d,), or None if the recipe
    knows none."""
    return standardise(scaler, np.array([features["neutral"]]))[0] if "neutral" in features else None


def has_blendshapes(data: LandmarkSet) -> bool:
    """Tell whether a set has blendshapes; one read from `.txt` has none."""
    return bool(data.blendshapes.any(axis=1).all())


def with_mirror_images(data: LandmarkSet, reference: list | None = None) -> LandmarkSet:
    """Return the set with every face once more as its mirror image; reference (468, 3): the mean face, if
    it is known."""
    if reference is None:
        reference = fit_reference(data.landmarks[:, :MESH_POINTS])
    landmarks, blendshapes = mirror_faces(data.landmarks, data.blendshapes, mirror_map(np.array(reference)))
    return concatenate([data, replace(data, landmarks=landmarks, blendshapes=blendshapes)])


def fit_scaler(x: np.ndarray):
    """Return a `StandardScaler` fitted on features (n, d), its constants rounded to float32, as
    deployment has them."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    scaler.mean_, scaler.scale_ = (
        values.astype(np.float32).astype(np.float64) for values in (scaler.mean_, scaler.scale_)
    )
    return scaler


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


def fit_projection(
    x: np.ndarray, scaler, features: dict, recipe: Recipe, seed: int, rows: int = 8000
) -> np.ndarray | None:
    """Return the matrix (d, components) onto the principal components of standardised features (n, d), or
    None.

    Standardised, a blendshape that hardly ever moves is as loud as a smile: they are taken by their own
    size again, all of them together about as strong as the coordinates.
    """
    if not recipe.components:
        return None
    weight = np.ones(x.shape[1])
    if features["blendshapes"]:
        weight[features["points"] * 3 :] = BLENDSHAPE_WEIGHT * scaler.scale_[features["points"] * 3 :]
    chosen = np.random.default_rng(seed).permutation(len(x))[:rows]
    weighted = x[chosen] * weight
    vectors = np.linalg.eigh(weighted.T @ weighted)[1][:, ::-1][:, : recipe.components]
    return (weight[:, None] * vectors).astype(np.float32)


def targets(data: LandmarkSet, recipe, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (target, weight): target (n, 2 * classes), the label one-hot, then 1 for each class of the
    face's file-name prefix group.

    A label outside its group's classes, and a group with one class, are told from all classes.
    """
    index = data.class_index(classes)
    one_hot = np.eye(len(classes), dtype=np.float32)[index]
    of_group = np.ones_like(one_hot)
    names = np.array(
        [f"{source}/{prefix_group(path)}" for source, path in zip(data.source.tolist(), data.path.tolist())]
    )
    for name in np.unique(names):
        rows = names == name
        held = np.bincount(index[rows], minlength=len(classes)) >= PREFIX_GROUP_SHARE * rows.sum()
        if held.sum() > 1:
            of_group[rows & held[index]] = held
    weight = class_source_weights(
        data.label, data.source if recipe.balance_within_source else np.full(len(data), "")
    )
    if recipe.source_exponent != 1:
        for name in np.unique(data.source):
            rows = data.source == name
            weight[rows] *= rows.sum() ** recipe.source_exponent / weight[rows].sum()
        weight *= len(weight) / weight.sum()
    return np.concatenate([one_hot, of_group], axis=1), weight


def out_of_fold_confidence(
    data: LandmarkSet, recipe: Recipe, seed: int, classes: Sequence[str], folds: int = 4
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
