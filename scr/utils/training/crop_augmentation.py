"""Crops as a backbone sees them while it is fine-tuned: moved, turned, mirrored, blurred, lit and partly
hidden by chance.

By OpenCV, not by Keras' layers: one interpolation takes a crop to its place, and the contrast is normalised
after the light has changed, as `crops.network_input` does.
"""

import numpy as np

from ..faces import crops
from ..faces.images import import_cv2

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


def augment(faces: np.ndarray, generator: np.random.Generator, recipe: dict) -> np.ndarray:
    """Return what a crop network sees of crops (n, CROP_PX, CROP_PX) uint8, each changed by chance:
    (n, side, side, 1) float32; recipe: that of `crops.network_input`."""
    return np.stack([_augment_one(crop, generator, recipe) for crop in faces])


def _augment_one(crop: np.ndarray, generator: np.random.Generator, recipe: dict) -> np.ndarray:
    cv2, uniform = import_cv2(), generator.uniform
    side = recipe["input_px"]
    scale = side / recipe["seen_px"] * np.exp(uniform(-MOST_SCALE, MOST_SCALE))
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
