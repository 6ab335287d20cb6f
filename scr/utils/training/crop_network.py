"""The crop network: a trunk that knows faces, small heads that learn expressions, folded into one.

Late layers of a network that tells people apart know who it is, not what the face shows: the trunk ends in
the middle. Its maps are computed once for each face and kept in a file; the heads learn from batches drawn
from there. `trunk_tuning` then fine-tunes the trunk, if a recipe asks for it.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import MODELS, UserError, relative
from ..data.arrays import Rows, choose, store
from ..data.face_set import FaceSet
from ..faces import crops
from . import networks

NAME = "emotion_crop"
TRUNK_FILE = MODELS / "face_mobilenet.npz"
TRUNK_SHA256 = "7abaaefe7d77f184533369000c2492176d2b2ee0d3e6ca2dc7d385f3705ff779"
"""MobileNet v1 (Howard et al. 2017) trained on VGGFace2, first convolution and blocks 1 to 8, batch norm
folded in; origin and terms in models/README.md."""
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1))
"""Filters and stride of each block."""
BGR_MEAN = (103.939, 116.779, 123.68)
"""What the trunk's training took off the colours."""
INPUT = {"kind": "crop", "seen_px": 88, "input_px": 160}
"""The recipe of `crops.network_input`: the mesh is as high as what is seen. Looser crops lose .02
(models/README.md)."""
MAPPED_FACES = 64
"""Faces that go through the trunk at a time."""
STATISTICS_FACES = 2500
LEAST_BATCHES = 16
"""Batches of an epoch that are drawn at least."""
VALIDATED_FACES = 2000
"""Validation faces, evenly picked, that the loss of each epoch is taken on."""


@dataclass(frozen=True)
class CropRecipe:
    """Everything that decides how heads and trunk are trained; what a field costs or gains stands in
    models/README.md."""

    heads: int = 2
    """trained side by side, their logits averaged"""
    hidden: int = 64
    """channels of a head's 1 x 1 convolution"""
    channel_dropout: float = 0.15
    dropout: float = 0.5
    learning_rate: float = 1e-3
    """of AdamW, with warm-up and cosine"""
    weight_decay: float = 0.02
    epochs: int = 5
    batch_size: int = 128
    smoothing: float = 0.05
    """of the labels"""
    within_prefix_group: float = 0.5
    """share of the loss that asks a face only to be told from the classes of its file-name prefix group"""
    balance_within_source: bool = True
    source_exponent: float = 0.6
    """a source weighs as its size to this power"""
    most_faces: int = 60_000
    """faces that are trained on, evenly picked: more bring little (models/README.md), and their maps take
    0.1 MB each"""
    fine_tuned_faces: int = 0
    """faces drawn to fine-tune the trunk with the heads, each moved, blurred and lit anew; 0: the trunk stays
    frozen"""
    frozen_blocks: int = 3
    """first blocks of the trunk that stay as they are in any case"""
    fine_tuning_rate: float = 5e-4
    fine_tuned_share: float = 0.75
    """of the change by fine-tuning that is kept"""


def load_trunk(path: Path = TRUNK_FILE) -> dict[str, np.ndarray]:
    """Return the trunk's weights as float32; raises UserError if the file is missing or another one."""
    if not path.is_file():
        raise UserError(f"no {relative(path)}; restore it: git checkout -- {relative(path)}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != TRUNK_SHA256:
        raise UserError(
            f"{relative(path)} is damaged or another version; run: git checkout -- {relative(path)}"
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name].astype(np.float32) for name in archive.files}


def build_trunk():
    """Return the trunk in Keras: `crops.network_input` (n, 160, 160, 1) -> maps (n, 10, 10, 512).

    It was trained on colours. For grey its first convolution is summed over them, which gives the same
    answers.
    """
    keras, weights = networks.import_keras(), load_trunk()
    layers = keras.layers
    kernel, bias = weights["conv1/kernel"], weights["conv1/bias"]
    shift = crops.GREY_MEAN - np.array(BGR_MEAN, np.float32)
    weights["conv1/bias"] = bias + np.einsum("hwcf,c->f", kernel, shift)
    weights["conv1/kernel"] = kernel.sum(axis=2, keepdims=True)
    inputs = keras.Input((INPUT["input_px"], INPUT["input_px"], 1), name="crop")
    x = layers.ReLU(6.0)(layers.Conv2D(32, 3, 2, "same", name="conv1")(inputs))
    for number, (filters, stride) in enumerate(BLOCKS, 1):
        x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, stride, "same", name=f"conv_dw_{number}")(x))
        x = layers.ReLU(6.0)(layers.Conv2D(filters, 1, name=f"conv_pw_{number}")(x))
    trunk = keras.Model(inputs, x, name="trunk")
    for layer in trunk.layers:
        if f"{layer.name}/kernel" in weights:
            layer.set_weights([weights[f"{layer.name}/kernel"], weights[f"{layer.name}/bias"]])
    return trunk


def compute_maps(faces: Rows, file: Path, kept: np.ndarray | None = None, progress: bool = True) -> Rows:
    """Return the trunk's maps (n, 10, 10, 512) float16 of crops (n, CROP_PX, CROP_PX), stored in a `file`.

    kept: the rows whose maps are stored, the others are computed each time they are read; None for all.
    """
    from tqdm import tqdm

    some = np.arange(len(faces)) if kept is None else kept
    computed = ComputedMaps(faces)

    def chunks():
        with tqdm(total=len(some), unit="face", desc="trunk", disable=not progress) as bar:
            for start in range(0, len(some), MAPPED_FACES):
                yield computed[some[start : start + MAPPED_FACES]]
                bar.update(min(MAPPED_FACES, len(some) - start))

    stored = store(file, chunks())
    if kept is None:
        return stored
    place = np.arange(len(faces)) + len(kept)
    place[kept] = np.arange(len(kept))
    return Rows([stored, computed]).choose(place)


class ComputedMaps:
    """The trunk's maps (n, 10, 10, 512) float16 of crops, an array whose rows are computed when read."""

    dtype = np.dtype(np.float16)

    def __init__(self, faces: Rows):
        self._faces, self._trunk = faces, build_trunk()
        self.shape = (len(faces), *self._trunk.output_shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        maps = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for start in range(0, len(rows), MAPPED_FACES):
            some = slice(start, start + MAPPED_FACES)
            seen = crops.network_input(self._faces[rows[some]], INPUT)
            maps[some] = self._trunk.predict_on_batch(seen)
        return maps


@dataclass(frozen=True)
class Heads:
    """Trained heads, all in one Keras model that gives logits (n, heads, classes).

    It takes maps (n, 10, 10, 512), or `crops.network_input` if the trunk was fine-tuned with the heads.
    """

    joint: object
    members: list
    mean: np.ndarray
    deviation: np.ndarray
    history: dict[str, list[float]]
    trunk: object | None = None
    """the fine-tuned one; None: as it is in its file"""

    def logits(self, data: FaceSet) -> np.ndarray:
        """Return the mean of the heads' logits (n, classes) of a set with crops and maps."""
        parts = []
        for start in range(0, len(data), 256):
            some = slice(start, start + 256)
            seen = crops.network_input(data.crop[some], INPUT) if self.trunk else data.maps[some]
            parts.append(self.joint.predict_on_batch(seen))
        return np.concatenate([np.empty((0, *self.joint.output_shape[1:]), np.float32), *parts]).mean(axis=1)


def fit_heads(
    train: tuple, val: tuple, classes: int, recipe: CropRecipe, seed: int, progress: bool = True
) -> Heads:
    """Train heads side by side on maps; train and val are (maps, target (n, 2 * classes), weight (n,)).

    The target is as `training.targets` gives it; batches are drawn by weight. The same seed gives the same
    weights.
    """
    keras = networks.import_keras()
    networks.set_seed(seed)
    mean, deviation = channel_statistics(train[0])
    members = [_build_head(keras, train[0].shape[1:], classes, recipe) for _ in range(recipe.heads)]
    inputs = keras.Input(train[0].shape[1:], dtype="float16")
    standardised = (keras.ops.cast(inputs, "float32") - mean) / deviation
    joint = keras.Model(inputs, keras.ops.stack([head(standardised) for head in members], axis=1))
    batches = max(LEAST_BATCHES, -(-len(train[0]) // recipe.batch_size))
    steps = batches * recipe.epochs
    history = fit_drawn(
        joint,
        optimizer_of(keras, recipe, recipe.learning_rate, steps),
        _drawn_batches(train, recipe.batch_size, steps, seed),
        (batches, recipe.epochs),
        val,
        classes,
        recipe,
        progress,
    )
    return Heads(joint, members, mean, deviation, history)


def optimizer_of(keras, recipe: CropRecipe, rate: float, steps: int, **settings):
    """Return AdamW, its rate warming up and falling as a cosine over `steps`."""
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(
            rate / 25, steps - steps // 12, warmup_target=rate, warmup_steps=max(1, steps // 12)
        ),
        weight_decay=recipe.weight_decay,
        **settings,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def fit_drawn(
    joint,
    optimizer,
    drawn,
    length: tuple[int, int],
    val: tuple,
    classes: int,
    recipe: CropRecipe,
    progress: bool,
) -> dict[str, list[float]]:
    """Train a network of logits (n, heads, classes) on drawn batches; return the learning curves by epoch.

    length: batches of an epoch, epochs; val: (rows, target, weight).
    """
    keras = networks.import_keras()

    def accuracy(target, logits):
        return keras.metrics.categorical_accuracy(target[:, :classes], keras.ops.mean(logits, axis=1))

    joint.compile(optimizer, _loss(keras, classes, recipe), weighted_metrics=[accuracy])
    step = max(1, len(val[0]) // VALIDATED_FACES)
    picked = [choose(values, slice(None, None, step)) for values in val]
    batches, epochs = length
    history = joint.fit(
        drawn,
        steps_per_epoch=batches,
        epochs=epochs,
        shuffle=False,  # drawn at random as they are
        validation_data=_all_batches(picked),
        validation_steps=-(-len(picked[0]) // 256),
        verbose=0,
        callbacks=[networks.progress_bar(keras, epochs, recipe.heads)] if progress else [],
    )
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def channel_statistics(maps: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (channels,) of maps, over some of the faces, evenly picked.

    A channel that hardly ever moves must not be blown up to noise: something is added to the deviation.
    """
    some = maps[:: -(-len(maps) // STATISTICS_FACES)]
    some = some.reshape(-1, some.shape[-1]).astype(np.float32)
    return some.mean(axis=0), some.std(axis=0) + np.float32(0.05)


def _build_head(keras, shape: tuple, classes: int, recipe: CropRecipe):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.SpatialDropout2D(recipe.channel_dropout),
            layers.Conv2D(recipe.hidden, 1, activation="relu", name="hidden"),
            layers.Dropout(recipe.dropout),
            layers.Flatten(),
            layers.Dense(classes, name="logits"),
        ]
    )


def _loss(keras, classes: int, recipe: CropRecipe):
    """Return the loss of logits (b, heads, classes): cross-entropy, a share of it among a prefix group's
    classes only."""
    ops, smooth = keras.ops, recipe.smoothing

    def loss(target, logits):
        label, group = target[:, None, :classes], target[:, None, classes:]
        whole = ops.sum((label * (1 - smooth) + smooth / classes) * ops.log_softmax(logits), axis=-1)
        soft = (label * (1 - smooth) + smooth / ops.sum(group, axis=-1, keepdims=True)) * group
        among = ops.sum(soft * ops.log_softmax(logits + (group - 1) * 30), axis=-1)
        share = recipe.within_prefix_group
        return -ops.sum((1 - share) * whole + share * among, axis=1)

    return loss


def _drawn_batches(data: tuple, batch_size: int, batches: int, seed: int):
    """Yield `batches` batches of (maps, target), drawn with replacement by weight."""
    maps, target, weight = data
    generator, share = np.random.default_rng(seed), weight.astype(np.float64) / weight.sum(dtype=np.float64)
    for _ in range(batches):
        rows = generator.choice(len(maps), batch_size, p=share)
        yield maps[rows], target[rows]


def _all_batches(data: Sequence, batch_size: int = 256):
    """Yield all of (maps, target, weight) in batches, again and again."""
    maps, target, weight = data
    while True:
        for start in range(0, len(maps), batch_size):
            rows = slice(start, start + batch_size)
            yield maps[rows], target[rows], weight[rows]


def assemble(heads: Heads, temperature: float = 1.0):
    """Return one network of trunk and heads: crops as `network_input` gives them -> `probabilities` and
    `embedding`.

    The standardisation is folded into the hidden convolution and the last layer is split without a change:
    `embedding` (hidden * heads * classes numbers) is what each hidden channel adds to each class, over the
    whole map, and the logits are its sums. It is the last hidden layer that a personal model learns from.
    """
    keras, trunk = networks.import_keras(), heads.trunk or build_trunk()
    hidden = [head.get_layer("hidden").get_weights() for head in heads.members]
    last = [head.get_layer("logits").get_weights() for head in heads.members]
    kernel = np.concatenate([weights[0] for weights in hidden], axis=-1) / heads.deviation[:, None]
    bias = np.concatenate([weights[1] for weights in hidden]) - heads.mean @ kernel[0, 0]
    side, width, classes = trunk.output_shape[1], len(bias), len(last[0][1])
    maps = np.concatenate([weights[0].reshape(side, side, -1, classes) for weights in last], axis=2)
    logits = np.tile(np.eye(classes), (width, 1)) / len(last) / temperature
    layers = keras.layers
    x = layers.Conv2D(width, 1, activation="relu", name="hidden")(trunk.output)
    x = layers.DepthwiseConv2D(side, depth_multiplier=classes, use_bias=False, name="contributions")(x)
    embedding = layers.Reshape((width * classes,), name="embedding")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(embedding)
    network = keras.Model(trunk.input, {"probabilities": probabilities, "embedding": embedding}, name=NAME)
    network.get_layer("hidden").set_weights([kernel, bias])
    network.get_layer("contributions").set_weights([maps])
    network.get_layer("probabilities").set_weights(
        [logits, np.mean([weights[1] for weights in last], axis=0) / temperature]
    )
    return network
