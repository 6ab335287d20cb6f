"""Crops as a backbone sees them while it is fine-tuned: moved, turned, mirrored, blurred, lit, partly hidden
by chance, some with a mask, a hand or sunglasses.

By OpenCV, not by Keras' layers: one interpolation takes a crop to its place, and the contrast is normalised
after the light has changed, as `crops.network_input` does.
"""

import numpy as np

from ..faces import crops
from ..faces.images import import_cv2

MOST_SCALE, MOST_TURN, MOST_MOVE, MOST_GAMMA = 0.1, 0.14, 4.8, 0.5
"""How far a crop is enlarged (logarithm), turned (radians), moved (pixels of the crop) and lit (logarithm of
gamma) at most."""
SHRUNK, SMALLEST_PX, LARGEST_PX = 0.4, 28, 100
"""Share of crops that are shrunk and enlarged again, and to which sides. A network that saw posed faces in
large pictures alone takes a third of them for `neutral` in pictures of 48 pixels (models/README.md)."""
BLURRED, BLURS = 0.2, (3, 5, 7, 9)
"""Share of crops that are blurred, and the sides of the box in pixels of the input."""
MOST_LIGHT = 0.4, 0.3
"""Change of the light from the middle to the right and to the lower border."""
MOST_NOISE, NOISY = 12.0, 0.3
"""Largest standard deviation of the noise, in grey levels, and the share of crops that get it."""
ERASED, ERASED_PX = 0.35, (10, 32)
"""Share of crops of which a rectangle is hidden, and half its sides in pixels of the input."""
COVERED = 0.12
"""Share of crops on which a mask, a hand or sunglasses are drawn. Of 174 faces with a patterned mask 53 are
surely wrong then, in place of 60 (tests/measure/covered.py): the network also learns to guess by the eyes."""
JAW = [234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454]
"""Points of the mesh along the jaw, from ear to ear."""
NOSE, CHEEKS = 4, [50, 280]
EYES = (133, 33), (362, 263)
"""Inner and outer corners."""


def augment(faces: np.ndarray, generator: np.random.Generator, recipe: dict) -> np.ndarray:
    """Return what a crop network sees of crops (n, CROP_PX, CROP_PX) uint8, each changed by chance:
    (n, side, side, 1) float32; recipe: that of `crops.network_input`."""
    return np.stack([_augment_one(crop, generator, recipe) for crop in faces])


def _augment_one(crop: np.ndarray, generator: np.random.Generator, recipe: dict) -> np.ndarray:
    cv2, uniform = import_cv2(), generator.uniform
    side = recipe["input_px"]
    scale = side / recipe["seen_px"] * np.exp(uniform(-MOST_SCALE, MOST_SCALE))
    turn, mirrored = uniform(-MOST_TURN, MOST_TURN), 1 - 2 * generator.integers(2)
    crop = cover(crop, generator) if uniform() < COVERED else crop
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[mirrored * cosine, -sine, 0], [mirrored * sine, cosine, 0]])
    middle = crops.CROP_PX / 2 + uniform(-MOST_MOVE, MOST_MOVE, 2)
    matrix[:, 2] = side / 2 - matrix[:, :2] @ middle + matrix[:, :2] @ (0.5, 0.5) - 0.5  # centres of pixels
    grey = cv2.warpAffine(crop, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    kind = uniform()
    if kind < SHRUNK:
        small = (int(generator.integers(SMALLEST_PX, LARGEST_PX)),) * 2
        shrunk = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
        grey = cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR)
    elif kind < SHRUNK + BLURRED:
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


def cover(crop: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a crop (CROP_PX, CROP_PX) uint8 with a mask, a hand or sunglasses drawn on it, plain or
    patterned.

    Drawn where the mean face has jaw, mouth and eyes: crops are laid on it.
    """
    cv2, uniform = import_cv2(), generator.uniform
    points, kind = crops.reference_points() + uniform(-2, 2, 2), generator.integers(3)
    cells = (int(generator.integers(4, crops.CROP_PX)),) * 2
    pattern = cv2.resize(generator.standard_normal(cells, np.float32), crop.shape)
    if kind == 0:
        top = points[NOSE] - (0, uniform(-2, 14))
        outlines, level, contrast = (
            [np.array([*points[JAW], top])],
            uniform(20, 245),
            generator.integers(2) * uniform(0, 60),
        )
    elif kind == 1:
        outlines, contrast = _fingers(generator, points[NOSE] + (0, 16)), uniform(0, 8)
        level = np.median([crop[int(y), int(x)] for x, y in points[CHEEKS]]) * uniform(0.8, 1.05)
    else:
        angles = np.linspace(0, 2 * np.pi, 24)
        lens = np.column_stack([np.cos(angles), uniform(0.6, 0.9) * np.sin(angles)]) * uniform(0.7, 1)
        outlines = [points[list(eye)].mean(axis=0) + lens * np.ptp(points[list(eye), 0]) for eye in EYES]
        level, contrast = uniform(0, 70), uniform(0, 8)
    drawn = crop.astype(np.float32)
    for outline in outlines:
        alpha = cv2.fillPoly(np.zeros(crop.shape, np.float32), [np.round(outline).astype(np.int32)], 1.0)
        alpha = cv2.GaussianBlur(alpha, (3, 3), 0)
        drawn += alpha * (level * uniform(0.9, 1) + contrast * pattern - drawn)
    return np.clip(drawn, 0, 255).astype(np.uint8)


def _fingers(generator: np.random.Generator, mouth: np.ndarray) -> list[np.ndarray]:
    """Return the outlines (4, 2) of four fingers across a mouth, from either side."""
    tilt, side = generator.uniform(-0.6, 0.6), generator.choice((-1, 1))
    along = np.array([side * np.cos(tilt), np.sin(tilt)])
    across = np.array([-along[1], along[0]]) * generator.uniform(4, 5)
    tips = mouth - along * generator.uniform(10, 26) + across * np.array([[-3], [-1], [1], [3]])
    return [
        np.array([tip - across, tip + across, tip + across + along * 80, tip - across + along * 80])
        for tip in tips
    ]
