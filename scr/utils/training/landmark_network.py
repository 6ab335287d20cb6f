"""The landmark network: its recipes, and the run from sets of faces to a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..config import DATA
from ..data.arrays import store
from ..data.face_set import FaceSet
from ..faces.features import compute_features, fit_recipe, mirror_faces, mirror_map
from ..files import scratch_folder
from ..model.bundle import NAME
from . import networks


@dataclass(frozen=True)
class Recipe:
    """How a landmark network is trained; what a field costs or gains stands in models/README.md."""

    features: str
    layers: tuple[tuple[int, float, bool], ...]
    """(units, dropout, batch norm)"""
    learning_rate: float
    epochs: int
    batch_size: int
    patience: int = 0
    """epochs without a better validation loss before it stops, each face being seen once an epoch, its weight
    multiplying the loss; 0: a fixed number of epochs of batches that are drawn by weight, then temperature
    scaling on the validation part"""
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
    mirror: bool = False
    """each face also as its mirror image, for aligned features"""
    class_prior: bool = False
    """whether a face is told mostly from the classes that occur where it comes from"""
    min_label_confidence: float = 0.0
    """label-noise filtering: faces whose label has a smaller out-of-fold confidence are left out"""
    networks: int = 1
    """trained side by side and folded into one wide network"""


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
        mirror=True,
        class_prior=True,
        min_label_confidence=0.1,
        networks=5,
    ),
}

BLENDSHAPE_WEIGHT = 23.0
"""Of a blendshape's own range [0, 1] against a standardised coordinate, before the principal components
are taken."""
PROJECTED_FACES = 4000
"""That the principal components are taken from, with their mirror images."""
ENOUGH_TO_FILTER = 2000
"""Faces that it takes for networks that see three quarters of them to know a wrong label from a rare
face."""
FOLDS = 4
"""That label-noise filtering holds out in turn."""
LEAST_BATCHES = 64
"""Batches of an epoch that are drawn at least: a small set gets as many steps as it takes to learn."""
LEAST_SCALE = 1e-5
"""What a feature is divided by at least: in a small set some blendshape never moves, but for rounding."""
CHUNK = 4096
"""Faces whose features are computed at a time: 24 MB, and some times that on the way."""


@dataclass(frozen=True)
class Trained:
    """A network with all that it takes to use and to describe it."""

    network: object
    scaler: object
    features: dict
    history: dict[str, list[float]]
    classes: tuple[str, ...]
    dropped: int
    """faces that label-noise filtering left out"""
    temperature: float = 1.0
    threshold: float = 0.0
    """confidence from which enough of the validation predictions are right"""

    def predict(self, data: FaceSet) -> np.ndarray:
        """Return the probabilities (n, classes) of a set of faces."""
        chunks = feature_chunks(data, self.features)
        parts = [networks.predict_network(self.network, standardise(self.scaler, x)) for x in chunks]
        return np.concatenate([np.empty((0, len(self.classes)), np.float32), *parts])

    def deployable(self) -> tuple:
        """Return network and scaler, as `export.save_bundle` takes them."""
        return self.network, self.scaler


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
        dropped, train_part = int((~kept).sum()), train_part.select(kept)
    blendshapes = recipe.blendshapes and bool(train_part.blendshapes.any(axis=1).all())  # a .txt has none
    features = fit_recipe(recipe.features, train_part.landmarks, blendshapes)
    partner = mirror_map(np.array(features["reference"])) if recipe.mirror else None
    scaler = fit_scaler(feature_chunks(train_part, features, partner))
    projection = None
    if recipe.components:
        some = train_part.select(np.random.default_rng(seed).permutation(len(train_part))[:PROJECTED_FACES])
        x = np.concatenate(list(feature_chunks(some, features, partner)))
        projection = fit_projection(standardise(scaler, x), scaler, features, recipe.components)

    def seen(chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for x in chunks:
            x = standardise(scaler, x)
            # Projected once, not in every step: it becomes a layer when the networks are assembled.
            yield x if projection is None else x @ projection

    target, weight = networks.targets(train_part, recipe, classes)
    copies = 1 if partner is None else 2
    val = np.concatenate(list(seen(feature_chunks(val_part, features))))
    with scratch_folder(DATA) as folder:
        x = store(folder / "features", seen(feature_chunks(train_part, features, partner)))
        data = x, np.tile(target, (copies, 1)), np.tile(weight, copies)
        val_data = val, *networks.targets(val_part, recipe, classes)
        members, history = fit_members(data, val_data, recipe, seed, progress)
    network = assemble(members, projection)
    trained = Trained(network, scaler, features, history, tuple(classes), dropped)
    if recipe.patience:
        return trained
    temperature, threshold = networks.calibrate(trained.predict(val_part), val_part.class_index(classes))
    last = network.layers[-1]
    last.set_weights([values / temperature for values in last.get_weights()])
    return replace(trained, temperature=temperature, threshold=threshold)


def fit_members(
    data: tuple, val: tuple, recipe: Recipe, seed: int, progress: bool = True
) -> tuple[list, dict[str, list[float]]]:
    """Return a recipe's networks of logits, trained side by side, and the learning curves.

    data and val: (x (n, d), target (n, 2 * classes), weight (n,)).
    """
    keras = networks.import_keras()
    size, classes = data[0].shape[1], data[1].shape[1] // 2
    members = [build_network(size, classes, recipe) for _ in range(recipe.networks)]
    inputs = keras.Input((size,))
    steps = -(-len(data[0]) // recipe.batch_size)
    if recipe.patience:
        optimizer = keras.optimizers.Adam(recipe.learning_rate)
    else:
        steps = max(LEAST_BATCHES, steps)
        optimizer = networks.build_optimizer(recipe.learning_rate, steps * recipe.epochs)
    history = networks.fit(
        networks.stack_members(inputs, inputs, members),
        networks.draw_batches(data, recipe.batch_size, not recipe.patience, seed),
        val,
        optimizer,
        networks.build_loss(classes),
        recipe.epochs,
        steps,
        recipe.patience,
        progress,
    )
    return members, history


def build_network(size: int, classes: int, recipe: Recipe):
    """Return an MLP on standardised features (n, size): the recipe's layers, then the logits of `classes`."""
    keras = networks.import_keras()
    penalty = keras.regularizers.L2(recipe.weight_decay) if recipe.weight_decay else None
    network = keras.Sequential([keras.Input((size,))])
    if recipe.input_noise:
        network.add(keras.layers.GaussianNoise(recipe.input_noise))
    for units, dropout, batch_norm in recipe.layers:
        network.add(keras.layers.Dense(units, activation="relu", kernel_regularizer=penalty))
        if batch_norm:
            network.add(keras.layers.BatchNormalization())
        if dropout:
            network.add(keras.layers.Dropout(dropout))
    network.add(keras.layers.Dense(classes, kernel_regularizer=penalty))
    return network


def assemble(members: Sequence, projection: np.ndarray | None = None):
    """Return one network of probabilities from several of logits that have one hidden layer, or from a single
    one of any depth, after a fixed projection (features, components) if given.

    Hidden layers stand side by side and the last layers are averaged, so it gives the normalised geometric
    mean of the members' probabilities.
    """
    keras = networks.import_keras()
    first, single = members[0], len(members) == 1
    size = first.input_shape[1] if projection is None else len(projection)
    whole = keras.Sequential([keras.Input((size,))], name=NAME)

    def add(layer, weights: list) -> None:
        whole.add(layer)
        layer.set_weights(weights)

    if projection is not None:
        layer = keras.layers.Dense(projection.shape[1], use_bias=False, trainable=False, name="projection")
        add(layer, [projection])
    for layer in first.layers[: -1 if single else -2]:
        add(type(layer).from_config(layer.get_config()), layer.get_weights())
    if not single:
        hidden = [member.layers[-2].get_weights() for member in members]
        kernel, bias = (np.concatenate(weights, axis=-1) for weights in zip(*hidden))
        add(keras.layers.Dense(len(bias), activation="relu"), [kernel, bias])
    kernels, biases = zip(*(member.layers[-1].get_weights() for member in members))
    last = keras.layers.Dense(len(biases[0]), activation="softmax", name="probabilities")
    add(last, [np.concatenate(kernels) / len(members), np.mean(biases, axis=0)])
    return whole


def feature_chunks(data, features: dict, partner: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the features (n, d) of faces, an object with landmarks and blendshapes, and, with `partner`, the
    `mirror_map`, of their mirror images behind them, some at a time."""
    for mirrored in (False, True) if partner is not None else (False,):
        for start in range(0, len(data.landmarks), CHUNK):
            rows = slice(start, start + CHUNK)
            landmarks, blendshapes = data.landmarks[rows], data.blendshapes[rows]
            if mirrored:
                landmarks, blendshapes = mirror_faces(landmarks, blendshapes, partner)
            yield compute_features(landmarks, blendshapes, features)


def fit_scaler(chunks: Iterator[np.ndarray]):
    """Return a `StandardScaler` fitted on features, its constants rounded to float32, as deployed."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for chunk in chunks:
        scaler.partial_fit(chunk)
    scale = np.maximum(scaler.scale_, LEAST_SCALE)
    scaler.mean_, scaler.scale_ = (
        values.astype(np.float32).astype(np.float64) for values in (scaler.mean_, scale)
    )
    return scaler


def standardise(scaler, x: np.ndarray) -> np.ndarray:
    """Return standardised features (n, d) float32."""
    return scaler.transform(x).astype(np.float32)


def fit_projection(x: np.ndarray, scaler, features: dict, components: int) -> np.ndarray:
    """Return the matrix (d, components) onto the principal components of standardised features (n, d).

    Standardised, a blendshape that hardly ever moves is as loud as a smile: they are taken by their own
    size again, all of them together about as strong as the coordinates.
    """
    weight = np.ones(x.shape[1])
    if features["blendshapes"]:
        weight[features["points"] * 3 :] = BLENDSHAPE_WEIGHT * scaler.scale_[features["points"] * 3 :]
    weighted = x * weight
    vectors = np.linalg.eigh(weighted.T @ weighted)[1][:, ::-1][:, :components]
    return (weight[:, None] * vectors).astype(np.float32)


def out_of_fold_confidence(data: FaceSet, recipe: Recipe, seed: int, classes: Sequence[str]) -> np.ndarray:
    """Return the probability (n,) that a small network trained on the other folds gives to each face's own
    label."""
    small = {"networks": 1, "mirror": False, "components": 150, "input_noise": 0.5}
    small = replace(recipe, min_label_confidence=0.0, **small)
    fold = np.random.default_rng(seed).permutation(len(data)) % FOLDS
    probability = np.empty(len(data))
    for number in range(FOLDS):
        held_out = data.select(fold == number)
        trained = train(data.select(fold != number), held_out, small, seed, classes, progress=False)
        of_label = np.arange(len(held_out)), held_out.class_index(classes)
        probability[fold == number] = trained.predict(held_out)[of_label]
    return probability
