"""Fine-tuning the crop network's trunk with its heads, on crops that are moved, blurred and lit anew.

The heads are trained on the frozen trunk first (Kumar et al. 2022); the weights that are kept are an average
over the steps, moved back toward the start by a share (Wortsman et al. 2022). Both keep what the trunk knew
of faces that are not in the training sources.
"""

import numpy as np

from ..data.arrays import Rows
from ..faces import crops
from ..faces.images import import_cv2
from . import crop_network, networks
from .crop_network import CropRecipe, Heads

BATCH_SIZE = 64
EPOCHS = 5
"""Into which the drawn faces are divided, for the learning curves."""
AVERAGED = 0.995
"""Weight of the steps before in the average of weights, each step."""
GRADIENT_NORM = 5.0

MOST_SCALE, MOST_TURN, MOST_MOVE, MOST_GAMMA = 0.1, 0.14, 4.8, 0.5
"""How far a crop is enlarged (logarithm), turned (radians), moved (pixels of the crop) and lit (logarithm of
gamma) at most."""
SMALLEST_PX, LARGEST_PX = 36, 100
"""Sides of the picture that a quarter of the crops are shrunk to and enlarged from."""
BLURS = 3, 5, 7, 9
"""Sides of the box, in pixels of the input, that another quarter is blurred with."""
MOST_LIGHT = 0.4, 0.3
"""Change of the light from the middle to the right and to the lower border."""
MOST_NOISE, NOISY = 12.0, 0.3
"""Largest standard deviation of the noise, in grey levels, and the share of crops that get it."""
ERASED, ERASED_PX = 0.35, (10, 32)
"""Share of crops of which a rectangle is hidden, and half its sides in pixels of the input."""


def fine_tune(
    heads: Heads, train: tuple, val: tuple, classes: int, recipe: CropRecipe, seed: int, progress: bool = True
) -> Heads:
    """Return the heads, trained on, with a trunk that was trained with them.

    train and val are (crops (n, CROP_PX, CROP_PX), target (n, 2 * classes), weight (n,)), drawn and asked as
    `crop_network.fit_heads` does. The same seed gives the same weights.
    """
    keras = networks.import_keras()
    networks.set_seed(seed)
    trunk = crop_network.build_trunk()
    for layer in trunk.layers:
        layer.trainable = _block(layer.name) > recipe.frozen_blocks
    standardised = (trunk.output - heads.mean) / heads.deviation
    joint = keras.Model(trunk.input, keras.ops.stack([head(standardised) for head in heads.members], axis=1))
    start = [variable.numpy() for variable in joint.trainable_variables]
    batches = max(1, recipe.fine_tuned_faces // BATCH_SIZE // EPOCHS)
    optimizer = crop_network.optimizer_of(
        keras,
        recipe,
        recipe.fine_tuning_rate,
        batches * EPOCHS,
        global_clipnorm=GRADIENT_NORM,
        use_ema=True,
        ema_momentum=AVERAGED,
    )
    history = crop_network.fit_drawn(
        joint,
        optimizer,
        _moved_batches(train, batches * EPOCHS, seed),
        (batches, EPOCHS),
        (Rows([_Inputs(val[0])]), *val[1:]),
        classes,
        recipe,
        progress,
    )
    for variable, before in zip(joint.trainable_variables, start):
        variable.assign(before + recipe.fine_tuned_share * (variable.numpy() - before))
    curves = {name: [*heads.history[name], *values] for name, values in history.items()}
    return Heads(joint, heads.members, heads.mean, heads.deviation, curves, trunk)


def _block(layer: str) -> int:
    """Return the number of the trunk's block that a layer belongs to, 0 for the first convolution."""
    number = layer.rpartition("_")[2]
    return int(number) if layer.startswith("conv_") else 0


class _Inputs:
    """What a crop network sees of crops, made when it is read."""

    dtype = np.dtype(np.float32)

    def __init__(self, faces: Rows):
        self._faces = faces
        self.shape = (len(faces), *crops.network_input(faces[:1], crop_network.INPUT).shape[1:])

    def __len__(self) -> int:
        return len(self._faces)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return crops.network_input(self._faces[rows], crop_network.INPUT)


def _moved_batches(data: tuple, batches: int, seed: int):
    """Yield `batches` batches of (what the network sees of moved crops, target), drawn by weight."""
    faces, target, weight = data
    generator, share = np.random.default_rng(seed), weight.astype(np.float64) / weight.sum(dtype=np.float64)
    for _ in range(batches):
        rows = np.sort(generator.choice(len(faces), BATCH_SIZE, p=share))
        yield np.stack([moved_input(crop, generator) for crop in faces[rows]]), target[rows]


def moved_input(crop: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return what a crop network sees, (side, side, 1) float32, of a crop (CROP_PX, CROP_PX) uint8 that is
    moved, turned, mirrored, blurred and lit by chance."""
    cv2, uniform = import_cv2(), generator.uniform
    side = crop_network.INPUT["input_px"]
    scale = side / crop_network.INPUT["seen_px"] * np.exp(uniform(-MOST_SCALE, MOST_SCALE))
    turn, mirrored = uniform(-MOST_TURN, MOST_TURN), 1 - 2 * generator.integers(2)
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[mirrored * cosine, -sine, 0], [mirrored * sine, cosine, 0]])
    middle = crops.CROP_PX / 2 + uniform(-MOST_MOVE, MOST_MOVE, 2)
    matrix[:, 2] = side / 2 - matrix[:, :2] @ middle + matrix[:, :2] @ (0.5, 0.5) - 0.5  # centres of pixels
    grey = cv2.warpAffine(crop, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    kind = generator.integers(4)
    if kind == 0:
        small = (int(generator.integers(SMALLEST_PX, LARGEST_PX)),) * 2
        shrunk = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
        grey = cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR)
    elif kind == 1:
        grey = cv2.blur(grey, (int(generator.choice(BLURS)),) * 2, borderType=cv2.BORDER_REPLICATE)
    grey = np.maximum(grey.astype(np.float32) / 255, 1e-3)
    if generator.integers(2):
        grey **= np.float32(np.exp(uniform(-MOST_GAMMA, MOST_GAMMA)))
    across = np.linspace(-1, 1, side, dtype=np.float32)
    right, down = (np.float32(uniform(-most, most)) for most in MOST_LIGHT)
    grey *= 255 * (1 + right * across + down * across[:, None])
    if uniform() < NOISY:
        grey += np.float32(uniform(0, MOST_NOISE)) * generator.standard_normal((side, side), np.float32)
    seen = crops.normalise(grey)
    if uniform() < ERASED:
        x, y = uniform(0, side, 2)
        width, height = uniform(*ERASED_PX, 2)
        seen[
            max(0, int(y - height)) : max(0, int(y + height)), max(0, int(x - width)) : max(0, int(x + width))
        ] = 0
    return seen[..., None]
