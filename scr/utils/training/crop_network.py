"""The crop network: a backbone that knows faces, small heads that learn expressions, folded into one.

Late layers of a network that tells people apart know who it is, not what the face shows: the backbone ends in
the middle. Its feature maps are computed once for each face and kept in a file, and the heads learn from
those. Then the backbone is fine-tuned with them, if the recipe says so, on crops that are changed by chance
(`crop_augmentation`).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ..config import MODELS, relative
from ..data.arrays import Rows
from ..data.face_set import FaceSet
from ..faces import crops
from ..files import read_verified
from ..model.bundle import CROP_NAME
from . import networks
from .crop_augmentation import augment

INPUT = {"kind": "crop", "seen_px": 88, "input_px": 160}
"""The recipe of `crops.network_input`: the mesh is as high as what is seen. Looser crops lose .02
(models/README.md)."""
CHUNK = 64
"""Crops that go through the backbone at a time."""
MOST_MAPS = 100_000
"""Faces whose maps are stored, 10 GB; those of others are computed each time they are read."""
STATISTICS_FACES = 2500
"""That the mean and the deviation of the maps' channels are taken from."""
LEAST_BATCHES = 16
"""Batches of an epoch that are drawn at least."""
VALIDATED_FACES = 2000
"""Validation faces, evenly picked, that the loss of each epoch is taken on."""
FINE_TUNING_BATCH, FINE_TUNING_EPOCHS = 64, 5
"""The epochs are for the learning curves: so many parts have the drawn faces."""
AVERAGED = 0.995
"""Weight of the steps before in the average of the fine-tuned weights, each step."""
GRADIENT_NORM = 5.0
"""The largest one in fine-tuning."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained network up to the layer whose feature maps say most about an expression."""

    file: Path
    sha256: str
    bgr_mean: tuple[float, float, float]
    """what its training took off the colours"""
    blocks: tuple[tuple[int, int], ...]
    """filters and stride of each block"""

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """The shape of its maps (side, side, channels)."""
        side = INPUT["input_px"] // 2 // int(np.prod([stride for _, stride in self.blocks]))
        return side, side, self.blocks[-1][0]

    def load(self) -> dict[str, np.ndarray]:
        """Return the weights as float32; raises UserError if the file is missing or another one."""
        data = read_verified(self.file, self.sha256, f"restore it: git checkout -- {relative(self.file)}")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name].astype(np.float32) for name in archive.files}

    def build(self):
        """Return it in Keras: `crops.network_input` (n, 160, 160, 1) -> maps (n, *map_shape).

        It was trained on colours. For grey its first convolution is summed over them, which gives the same
        maps.
        """
        keras, weights = networks.import_keras(), self.load()
        layers, kernel = keras.layers, weights["conv1/kernel"]
        shift = crops.GREY_MEAN - np.array(self.bgr_mean, np.float32)
        weights["conv1/bias"] = weights["conv1/bias"] + np.einsum("hwcf,c->f", kernel, shift)
        weights["conv1/kernel"] = kernel.sum(axis=2, keepdims=True)
        inputs = keras.Input((INPUT["input_px"], INPUT["input_px"], 1), name="crop")
        x = layers.ReLU(6.0)(layers.Conv2D(32, 3, 2, "same", name="conv1")(inputs))
        for number, (filters, stride) in enumerate(self.blocks, 1):
            x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, stride, "same", name=f"conv_dw_{number}")(x))
            x = layers.ReLU(6.0)(layers.Conv2D(filters, 1, name=f"conv_pw_{number}")(x))
        network = keras.Model(inputs, x, name="backbone")
        for layer in network.layers:
            if f"{layer.name}/kernel" in weights:
                layer.set_weights([weights[f"{layer.name}/kernel"], weights[f"{layer.name}/bias"]])
        return network


BACKBONE = Backbone(
    MODELS / "face_mobilenet.npz",
    "7abaaefe7d77f184533369000c2492176d2b2ee0d3e6ca2dc7d385f3705ff779",
    (103.939, 116.779, 123.68),
    ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1)),
)
"""MobileNet v1 (Howard et al. 2017) trained on VGGFace2, first convolution and blocks 1 to 8, batch norm
folded in; origin and terms in models/README.md."""


@dataclass(frozen=True)
class Recipe:
    """How heads and backbone are trained; what a field costs or gains stands in models/README.md."""

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
    class_prior: bool = True
    """whether a face is told mostly from the classes that occur where it comes from"""
    balance_within_source: bool = True
    source_exponent: float = 0.6
    """a source weighs as its size to this power"""
    most_faces: int = 60_000
    """faces that are trained on, evenly picked: more bring little (models/README.md), and their maps
    take 0.1 MB each"""
    fine_tuned_faces: int = 0
    """faces drawn to fine-tune the backbone with the heads, each moved, blurred and lit anew; 0: it stays
    frozen"""
    frozen_blocks: int = 3
    """first blocks of the backbone that stay as they are in any case"""
    fine_tuning_rate: float = 5e-4
    fine_tuned_share: float = 0.75
    """of the change by fine-tuning that is kept"""


class FeatureMaps:
    """The backbone's maps (n, *map_shape) float16 of crops (n, CROP_PX, CROP_PX): computed when rows are
    first read, and kept in a file."""

    dtype = np.dtype(np.float16)

    def __init__(self, faces: np.ndarray | Rows, file: Path):
        self._faces, self._file, self._backbone = faces, file, BACKBONE.build()
        self.shape = len(faces), *BACKBONE.map_shape
        self._place, self._kept = np.full(len(faces), -1), 0
        file.touch()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        values, place = np.empty((len(rows), *self.shape[1:]), self.dtype), self._place[rows]
        if (place >= 0).any():
            stored = np.memmap(self._file, self.dtype, "r", shape=(self._kept, *self.shape[1:]))
            values[place >= 0] = stored[place[place >= 0]]
        new = np.flatnonzero(place < 0)
        for start in range(0, len(new), CHUNK):
            some = new[start : start + CHUNK]
            values[some] = self._backbone.predict_on_batch(
                crops.network_input(self._faces[rows[some]], INPUT)
            )
            if self._kept + len(some) <= MOST_MAPS:
                with self._file.open("ab") as file:
                    values[some].tofile(file)
                self._place[rows[some]] = self._kept + np.arange(len(some))
                self._kept += len(some)
        return values


@dataclass(frozen=True)
class Trained:
    """Heads on a backbone with all that it takes to use and to describe them."""

    network: object
    """all heads in one: their logits (n, heads, classes) of maps, or of `crops.network_input` if the backbone
    was fine-tuned with them"""
    heads: list
    mean: np.ndarray
    deviation: np.ndarray
    """of the maps' channels"""
    history: dict[str, list[float]]
    classes: tuple[str, ...]
    backbone: object | None = None
    """the fine-tuned one; None: as it is in its file"""
    temperature: float = 1.0
    threshold: float = 0.0
    dropped = 0
    """faces that label-noise filtering left out: of a crop network none"""

    @property
    def features(self) -> dict:
        """How its input is made, and the size of its embedding."""
        return INPUT | {"embedding": len(self.classes) * sum(head.layers[1].filters for head in self.heads)}

    def predict(self, data: FaceSet) -> np.ndarray:
        """Return the probabilities (n, classes) of a set with crops and maps."""
        parts = [np.empty((0, *self.network.output_shape[1:]), np.float32)]
        for start in range(0, len(data), CHUNK):
            rows = slice(start, start + CHUNK)
            x = crops.network_input(data.crop[rows], INPUT) if self.backbone else data.maps[rows]
            parts.append(self.network.predict_on_batch(x))
        return softmax(np.concatenate(parts).mean(axis=1) / self.temperature, axis=1)

    def deployable(self) -> tuple:
        """Return the whole network, as `export.save_bundle` takes it: crops as `network_input` gives them ->
        `probabilities` and `embedding`.

        The standardisation is folded into the hidden convolution and the last layer is split without a
        change: `embedding` (hidden * heads * classes numbers) is what each hidden channel adds to each class,
        over the whole map, and the logits are its sums. A personal model learns from it.
        """
        keras, backbone = networks.import_keras(), self.backbone or BACKBONE.build()
        hidden = [head.get_layer("hidden").get_weights() for head in self.heads]
        last = [head.get_layer("logits").get_weights() for head in self.heads]
        kernel = np.concatenate([weights[0] for weights in hidden], axis=-1) / self.deviation[:, None]
        bias = np.concatenate([weights[1] for weights in hidden]) - self.mean @ kernel[0, 0]
        side, width, classes = backbone.output_shape[1], len(bias), len(last[0][1])
        maps = np.concatenate([weights[0].reshape(side, side, -1, classes) for weights in last], axis=2)
        scale = len(last) * self.temperature
        layers = keras.layers
        x = layers.Conv2D(width, 1, activation="relu", name="hidden")(backbone.output)
        x = layers.DepthwiseConv2D(side, depth_multiplier=classes, use_bias=False, name="contributions")(x)
        embedding = layers.Reshape((width * classes,), name="embedding")(x)
        probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(embedding)
        outputs = {"probabilities": probabilities, "embedding": embedding}
        network = keras.Model(backbone.input, outputs, name=CROP_NAME)
        network.get_layer("hidden").set_weights([kernel, bias])
        network.get_layer("contributions").set_weights([maps])
        network.get_layer("probabilities").set_weights(
            [np.tile(np.eye(classes), (width, 1)) / scale, np.sum([bias for _, bias in last], axis=0) / scale]
        )
        return (network,)


def train(
    train_part: FaceSet,
    val_part: FaceSet,
    recipe: Recipe,
    seed: int,
    classes: Sequence[str],
    progress: bool = True,
) -> Trained:
    """Return heads trained on one part and calibrated on another, both with crops and maps.

    The same seed gives the same weights.
    """
    from tqdm import tqdm

    if len(train_part) > recipe.most_faces:
        some = np.random.default_rng(seed).permutation(len(train_part))[: recipe.most_faces]
        train_part = train_part.select(np.sort(some))
    for start in tqdm(range(0, len(train_part), CHUNK), desc="feature maps", disable=not progress):
        train_part.maps[start : start + CHUNK]  # read once, so that they are stored
    learned = networks.targets(train_part, recipe, classes)
    validated = val_part.select(slice(None, None, max(1, len(val_part) // VALIDATED_FACES)))
    judged = networks.targets(validated, recipe, classes)
    trained = fit_heads((train_part.maps, *learned), (validated.maps[:], *judged), recipe, seed, progress)
    trained = replace(trained, classes=tuple(classes))
    if recipe.fine_tuned_faces:
        val = crops.network_input(validated.crop[:], INPUT), *judged
        trained = fine_tune(trained, (train_part.crop, *learned), val, recipe, seed, progress)
    temperature, threshold = networks.calibrate(trained.predict(val_part), val_part.class_index(classes))
    return replace(trained, temperature=temperature, threshold=threshold)


def fit_heads(data: tuple, val: tuple, recipe: Recipe, seed: int, progress: bool = True) -> Trained:
    """Train heads side by side on maps; data and val: (maps, target (n, 2 * classes), weight (n,))."""
    keras = networks.import_keras()
    networks.set_seed(seed)
    maps, classes = data[0], data[1].shape[1] // 2
    pixels = maps[:: -(-len(maps) // STATISTICS_FACES)].reshape(-1, maps.shape[-1]).astype(np.float32)
    # A channel that hardly ever moves must not be blown up to noise: something is added to the deviation.
    mean, deviation = pixels.mean(axis=0), pixels.std(axis=0) + np.float32(0.05)

    def build_head():
        return keras.Sequential(
            [
                keras.Input(maps.shape[1:]),
                keras.layers.SpatialDropout2D(recipe.channel_dropout),
                keras.layers.Conv2D(recipe.hidden, 1, activation="relu", name="hidden"),
                keras.layers.Dropout(recipe.dropout),
                keras.layers.Flatten(),
                keras.layers.Dense(classes, name="logits"),
            ]
        )

    heads = [build_head() for _ in range(recipe.heads)]
    inputs = keras.Input(maps.shape[1:], dtype="float16")
    standardised = (keras.ops.cast(inputs, "float32") - mean) / deviation
    network = networks.stack_members(inputs, standardised, heads)
    steps = max(LEAST_BATCHES, -(-len(maps) // recipe.batch_size))
    history = networks.fit(
        network,
        networks.draw_batches(data, recipe.batch_size, True, seed),
        val,
        networks.build_optimizer(recipe.learning_rate, steps * recipe.epochs, recipe.weight_decay),
        networks.build_loss(classes, recipe.smoothing),
        recipe.epochs,
        steps,
        progress=progress,
    )
    return Trained(network, heads, mean, deviation, history, ())


def fine_tune(
    trained: Trained, data: tuple, val: tuple, recipe: Recipe, seed: int, progress: bool = True
) -> Trained:
    """Return the heads, trained on, with a backbone that was trained with them.

    The heads were trained on the frozen backbone first (Kumar et al. 2022); the weights that are kept are an
    average over the steps, moved back toward the start by a share (Wortsman et al. 2022). Both keep what the
    backbone knew of faces that are not in the training sources. data: (crops, target, weight); val: the same
    with `crops.network_input` in place of crops.
    """
    networks.set_seed(seed)
    backbone = BACKBONE.build()
    for layer in backbone.layers:
        number = layer.name.rpartition("_")[2]
        block = int(number) if layer.name.startswith("conv_") else 0
        layer.trainable = block > recipe.frozen_blocks
    standardised = (backbone.output - trained.mean) / trained.deviation
    network = networks.stack_members(backbone.input, standardised, trained.heads)
    start = [variable.numpy() for variable in network.trainable_variables]
    steps = max(1, recipe.fine_tuned_faces // FINE_TUNING_BATCH // FINE_TUNING_EPOCHS)
    history = networks.fit(
        network,
        networks.draw_batches(data, FINE_TUNING_BATCH, True, seed, lambda *given: augment(*given, INPUT)),
        val,
        networks.build_optimizer(
            recipe.fine_tuning_rate,
            steps * FINE_TUNING_EPOCHS,
            recipe.weight_decay,
            global_clipnorm=GRADIENT_NORM,
            use_ema=True,
            ema_momentum=AVERAGED,
        ),
        networks.build_loss(len(trained.classes), recipe.smoothing),
        FINE_TUNING_EPOCHS,
        steps,
        progress=progress,
    )
    for variable, before in zip(network.trainable_variables, start):
        variable.assign(before + recipe.fine_tuned_share * (variable.numpy() - before))
    curves = {name: [*trained.history[name], *values] for name, values in history.items()}
    return replace(trained, network=network, history=curves, backbone=backbone)
