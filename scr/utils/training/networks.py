"""What the training of both networks shares: Keras, targets, sampler, loss, loop and calibration.

With `export`, the owner of Keras and TensorFlow.
"""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..config import native_log_silenced
from ..data.audit import prefix_groups
from ..data.face_set import FaceSet
from ..data.splits import class_source_weights
from ..evaluation.metrics import confidence_threshold
from ..model.classifier import mix

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises, before it falls as a cosine."""
LACKING = 0.1
"""A file-name prefix group lacks a class that has less than so much of its share in the whole source."""
IN_SOURCE, ELSEWHERE = 0.1, 0.001
"""Priors of classes that a prefix group, and a whole source, lacks (models/README.md)."""
PREDICTED_RIGHT = 0.85
"""Share of the predictions that must be right where the model is sure enough to give one."""


def import_keras():
    """Return keras on the TensorFlow backend, without TensorFlow's start-up chatter."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_log_silenced():
        import keras
        import tensorflow
    tensorflow.get_logger().setLevel("ERROR")  # it complains of retracing when several networks are trained
    return keras


def set_seed(seed: int) -> None:
    """Make the runs that follow repeatable to the bit (on one machine and one version of TensorFlow)."""
    import_keras().utils.set_random_seed(seed)
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()


def targets(data: FaceSet, recipe, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (target, weight) of a set's faces by a network's recipe.

    target (n, 2 * classes) float32: 1 for the label's class, then the logarithm of `class_prior`. weight (n,)
    has a mean of 1.
    """
    index = data.class_index(classes)
    label = np.eye(len(classes), dtype=np.float32)[index]
    prior = class_prior(data, index, len(classes)) if recipe.class_prior else np.ones_like(label)
    source = data.source if recipe.balance_within_source else np.full(len(data), "")
    weight = class_source_weights(data.label, source)
    if recipe.source_exponent != 1:
        for name in np.unique(data.source):
            rows = data.source == name
            weight[rows] *= rows.sum() ** recipe.source_exponent / weight[rows].sum()
    return np.concatenate([label, np.log(prior, dtype=np.float32)], axis=1), weight / weight.mean()


def class_prior(data: FaceSet, index: np.ndarray, classes: int) -> np.ndarray:
    """Return how likely each class is among the faces that each one comes from (n, classes), at most 1.

    It is `IN_SOURCE` of a class that the face's source has but its file-name prefix group lacks, and
    `ELSEWHERE` of one that the source lacks: what is known of the face's look says little about these. index
    (n,): the labels'. A label that its group lacks is told from all classes of the source; one of a source
    with a single class, from all.
    """
    in_group = _shares(prefix_groups(data), index, classes)
    in_source = _shares(data.source, index, classes)
    lacking = in_group < LACKING * in_source
    lacking[lacking[np.arange(len(index)), index]] = False
    prior = np.where(in_source > 0, np.where(lacking, IN_SOURCE, 1.0), ELSEWHERE)
    prior[(in_source > 0).sum(axis=1) < 2] = 1
    return prior


def _shares(names: np.ndarray, index: np.ndarray, classes: int) -> np.ndarray:
    """Return the shares (n, classes) of the classes among the faces of the same name."""
    number = np.unique(names, return_inverse=True)[1]
    counts = np.zeros((number.max(initial=0) + 1, classes))
    np.add.at(counts, (number, index), 1)
    return (counts / counts.sum(axis=1, keepdims=True))[number]


def draw_batches(
    data: tuple, batch_size: int, by_weight: bool, seed: int, change: Callable | None = None
) -> Iterator[tuple]:
    """Yield batches (x, target, weight) of data, a tuple of the same with n rows, without end.

    by_weight: faces are drawn with replacement by weight, so that rare classes are seen as often as common
    ones, and all weigh 1; else each is seen once an epoch, with its weight. change: what is made of a batch's
    x, given a random generator beside it.
    """
    x, target, weight = data
    generator = np.random.default_rng(seed)
    share = np.cumsum(weight, dtype=np.float64) / weight.sum(dtype=np.float64)
    order = np.empty(0, int)
    while True:
        if by_weight:
            rows = np.minimum(np.searchsorted(share, generator.random(batch_size)), len(x) - 1)
        else:
            if not len(order):
                order = generator.permutation(len(x))
            rows, order = order[:batch_size], order[batch_size:]
        rows = np.sort(rows)  # files are read from front to back
        some = x[rows] if change is None else change(x[rows], generator)
        yield some, target[rows], np.ones(len(rows), np.float32) if by_weight else weight[rows]


def build_loss(classes: int, smoothing: float = 0.0):
    """Return the loss of logits (b, members, classes), summed over the members: the cross-entropy of logits
    to which the logarithms of the priors are added (Menon et al. 2021), with targets as `targets` gives them.

    Labels are smoothed among the classes of a face's prefix group.
    """
    ops = import_keras().ops

    def loss(target, logits):
        label, log_prior = target[:, None, :classes], target[:, None, classes:]
        present = ops.cast(log_prior >= 0, "float32")
        label = label * (1 - smoothing) + smoothing * present / ops.sum(present, axis=-1, keepdims=True)
        return -ops.sum(label * ops.log_softmax(logits + log_prior), axis=(1, 2))

    return loss


def build_optimizer(learning_rate: float, steps: int, weight_decay: float = 0.0, **settings):
    """Return AdamW, its learning rate warming up and then falling as a cosine over all steps."""
    keras = import_keras()
    warm_up = max(1, int(steps * WARM_UP))
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 25, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, **settings)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def stack_members(inputs, x, members: Sequence):
    """Return one network of several that all see `x`, made of `inputs`: logits (n, members, classes)."""
    keras = import_keras()
    return keras.Model(inputs, keras.ops.stack([member(x) for member in members], axis=1))


def fit(
    network,
    batches: Iterator[tuple],
    val: tuple,
    optimizer,
    loss,
    epochs: int,
    steps: int,
    patience: int = 0,
    progress: bool = True,
) -> dict[str, list[float]]:
    """Train a network of logits (n, members, classes); return the learning curves, a value for each epoch.

    batches: of `draw_batches`, `steps` of them an epoch; val: (x, target, weight) in memory. With `patience`,
    ReduceLROnPlateau and EarlyStopping (best weights restored) watch the validation loss.
    """
    keras = import_keras()
    _, members, classes = network.output_shape

    def accuracy(target, logits):
        return keras.metrics.categorical_accuracy(target[:, :classes], keras.ops.mean(logits, axis=1))

    callbacks = [_progress_bar(keras, epochs, members)] if progress else []
    if patience:
        callbacks += [
            keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=max(1, patience // 3)),
        ]
    network.compile(optimizer, loss, weighted_metrics=[accuracy])
    history = network.fit(
        batches,
        steps_per_epoch=steps,
        epochs=epochs,
        shuffle=False,  # drawn at random as they are
        validation_data=val,
        validation_batch_size=256,
        verbose=0,
        callbacks=callbacks,
    )
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def predict_network(network, x: np.ndarray, batch: int = 4096) -> np.ndarray:
    """Return the probabilities (n, classes) of what a network sees (n, ...): standardised features or
    crops."""
    outputs = network.predict(x, batch_size=batch, verbose=0)
    return outputs["probabilities"] if isinstance(outputs, dict) else outputs


def _progress_bar(keras, epochs: int, members: int):
    """Return a callback that shows the epochs, and the mean of the members' losses, which are summed."""
    from tqdm import tqdm

    class ProgressBar(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.bar = tqdm(total=epochs, unit="epoch", desc=f"training {members} networks at once")

        def on_epoch_end(self, epoch, logs=None):
            shown = {name: logs[name] / members for name in ("loss", "val_loss")}
            shown["val_accuracy"] = logs["val_accuracy"]
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
            self.bar.update()

        def on_train_end(self, logs=None):
            self.bar.close()

    return ProgressBar()


def fit_temperature(probabilities: np.ndarray, index: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Return the temperature that gives labels the greatest likelihood (Guo et al. 2017), .3 to 3.

    probabilities (n, classes), index (n,) the labels'. Faces weigh as they come, unless a weight (n,) is
    given, not balanced: a confidence is to be right about the faces that there are.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits, rows = np.log(np.maximum(probabilities, 1e-9)), np.arange(len(index))

    def loss(temperature: float) -> float:
        return -np.average(log_softmax(logits / temperature, axis=1)[rows, index], weights=weight)

    return float(minimize_scalar(loss, bounds=(0.3, 3.0), method="bounded").x)


def calibrate(probabilities: np.ndarray, index: np.ndarray) -> tuple[float, float]:
    """Return the temperature that fits labels (n,) best, and the confidence from which enough predictions are
    right then; 0 if no confidence is."""
    temperature = fit_temperature(probabilities, index)
    scaled = mix([(1.0, probabilities)], temperature)
    threshold, predicted = confidence_threshold(index, scaled, PREDICTED_RIGHT)
    return temperature, threshold if predicted else 0.0
