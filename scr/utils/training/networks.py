"""Networks in Keras: build, fit, copy, fold into one, fine-tune, predict. With `export`, the owner of
Keras and TensorFlow."""

import os
from collections.abc import Sequence

import numpy as np

from ..config import native_log_silenced
from ..model.bundle import NAME

MANY = 200_000
"""Rows, mirror images too, from which the shares of what is drawn are added up in double precision."""
LEAST_BATCHES = 64
"""Batches of an epoch that are drawn at least."""


def import_keras():
    """Return keras on the TensorFlow backend, without TensorFlow's start-up chatter."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_log_silenced():
        import keras
        import tensorflow
    tensorflow.get_logger().setLevel(
        "ERROR"
    )  # it complains of retracing when several small networks are trained
    return keras


def set_seed(seed: int) -> None:
    """Make the runs that follow repeatable to the bit (on one machine and one version of TensorFlow)."""
    import_keras().utils.set_random_seed(seed)
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()


def build_network(
    features: int,
    classes: int,
    layers: Sequence[tuple[int, float, bool]],
    input_noise: float = 0.0,
    weight_decay: float = 0.0,
):
    """Return an MLP on standardised features: `layers` of (units, dropout, batch norm), then a softmax of
    `classes`."""
    keras = import_keras()
    penalty = keras.regularizers.L2(weight_decay) if weight_decay else None
    network = keras.Sequential([keras.Input((features,))])
    if input_noise:
        network.add(keras.layers.GaussianNoise(input_noise))
    for units, dropout, batch_norm in layers:
        network.add(keras.layers.Dense(units, activation="relu", kernel_regularizer=penalty))
        if batch_norm:
            network.add(keras.layers.BatchNormalization())
        if dropout:
            network.add(keras.layers.Dropout(dropout))
    network.add(
        keras.layers.Dense(classes, activation="softmax", kernel_regularizer=penalty, name="probabilities")
    )
    return network


def fit_networks(
    networks: Sequence,
    train: tuple,
    val: tuple,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    patience: int,
    within_prefix_group: float = 0.0,
    draw_seed: int | None = None,
    progress: bool = True,
) -> dict[str, list[float]]:
    """Train networks side by side with Adam; return the learning curves: loss, accuracy, val_loss,
    val_accuracy by epoch.

    train and val are (features (n, d), target (n, 2 * classes), weight (n,)), the target as
    `training.targets` gives it; the features of train may be `Rows`, which stay on disk while batches are
    drawn. With `patience`, ReduceLROnPlateau and EarlyStopping (best weights
    restored) watch the validation loss; without, the rate warms up and falls as a cosine over all epochs.
    With `draw_seed`, batches are drawn by weight, so that rare classes are seen as often as common ones;
    else each face is seen once an epoch and the weight multiplies its loss.
    """
    keras = import_keras()
    inputs = keras.Input(networks[0].input_shape[1:])
    joint = keras.Model(inputs, keras.ops.stack([network(inputs) for network in networks], axis=1))
    classes, batches = networks[0].output_shape[1], -(-len(train[0]) // batch_size)
    if draw_seed is not None:  # what is drawn has no end: a small set gets as many steps as it takes to learn
        batches = max(batches, LEAST_BATCHES)
    callbacks = [progress_bar(keras, epochs, len(networks))] if progress else []
    if patience:
        callbacks += [
            keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=max(1, patience // 3)),
        ]
    else:
        steps = epochs * batches
        learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / 25,
            max(1, steps - steps // 10),
            warmup_target=learning_rate,
            warmup_steps=max(1, steps // 10),
        )

    def loss(target, probabilities):  # target (b, 2 * classes), probabilities (b, networks, classes)
        log_likelihood = _log_likelihood(keras, target[:, None], probabilities, classes, within_prefix_group)
        return -keras.ops.sum(target[:, None, :classes] * log_likelihood, axis=(1, 2))

    def accuracy(target, probabilities):
        return keras.metrics.categorical_accuracy(target[:, :classes], keras.ops.mean(probabilities, axis=1))

    joint.compile(keras.optimizers.Adam(learning_rate), loss, weighted_metrics=[accuracy])
    if draw_seed is None:
        fed = {"x": np.asarray(train[0]), "y": train[1], "sample_weight": train[2], "batch_size": batch_size}
    else:
        fed = {
            "x": _drawn_batches(train, batch_size, epochs * batches, draw_seed),
            "steps_per_epoch": batches,
            "shuffle": False,
        }
    history = joint.fit(
        **fed, validation_data=val, validation_batch_size=4096, epochs=epochs, verbose=0, callbacks=callbacks
    )
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def _drawn_batches(data: tuple, batch_size: int, batches: int, seed: int):
    """Return a data set of `batches` batches of (features, target), drawn with replacement by weight."""
    import tensorflow

    x, target, weight = data
    # Of a million weights each is less than single precision can add to a sum near 1.
    precision = np.float32 if len(x) < MANY else np.float64
    share = np.cumsum((weight / weight.sum()).astype(precision))

    def draw():
        generator = np.random.default_rng(seed)
        for _ in range(batches):
            rows = np.minimum(np.searchsorted(share, generator.random(batch_size)), len(x) - 1)
            yield x[rows], target[rows]

    kinds = [tensorflow.TensorSpec((batch_size, *values.shape[1:]), values.dtype) for values in (x, target)]
    return tensorflow.data.Dataset.from_generator(draw, output_signature=tuple(kinds)).prefetch(4)


def _log_likelihood(keras, target, probabilities, classes: int, within_prefix_group: float):
    """Return log-probabilities, a share of them taken among the classes of the face's file-name prefix group
    only."""
    whole = keras.ops.log(probabilities + 1e-7)
    if not within_prefix_group:
        return whole
    among = probabilities * target[..., classes:] + 1e-7
    return (1 - within_prefix_group) * whole + within_prefix_group * keras.ops.log(
        among / keras.ops.sum(among, axis=-1, keepdims=True)
    )


def progress_bar(keras, epochs: int, networks: int):
    """Return a callback that shows the epochs, and the losses, with penalties: the mean of the networks,
    whose losses are summed."""
    from tqdm import tqdm

    class ProgressBar(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.bar = tqdm(
                total=epochs, unit="epoch", desc=f"training {networks} networks at once, mean losses"
            )

        def on_epoch_end(self, epoch, logs=None):
            shown = {name: logs[name] / networks for name in ("loss", "val_loss")}
            shown["val_accuracy"] = logs["val_accuracy"]
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
            self.bar.update()

        def on_train_end(self, logs=None):
            self.bar.close()

    return ProgressBar()


def predict_network(network, x: np.ndarray, batch: int = 4096) -> np.ndarray:
    """Return a network's probabilities (n, classes) of what it sees (n, ...): standardised features or
    crops."""
    answers = network.predict(x, batch_size=batch, verbose=0)
    return answers["probabilities"] if isinstance(answers, dict) else answers


def assemble(networks: Sequence, projection: np.ndarray | None = None):
    """Return one network from several with one hidden layer, after a fixed projection (features,
    components) if given.

    Hidden layers stand side by side and the last layers are averaged, so it gives the normalised
    geometric mean of their answers. A single network, of any depth, is copied.
    """
    keras = import_keras()
    first = networks[0]
    whole = keras.Sequential(
        [keras.Input((first.input_shape[1] if projection is None else len(projection),))], name=NAME
    )

    def add(layer, weights: list) -> None:
        whole.add(layer)
        layer.set_weights(weights)

    if projection is not None:
        add(
            keras.layers.Dense(projection.shape[1], use_bias=False, trainable=False, name="projection"),
            [projection],
        )
    single = len(networks) == 1
    for layer in first.layers if single else first.layers[:-2]:
        add(type(layer).from_config(layer.get_config()), layer.get_weights())
    if single:
        return whole
    hidden, last = ([network.layers[position].get_weights() for network in networks] for position in (-2, -1))
    penalty = first.layers[-1].kernel_regularizer
    add(
        keras.layers.Dense(
            sum(len(bias) for _, bias in hidden), activation="relu", kernel_regularizer=penalty
        ),
        [np.concatenate([weights[part] for weights in hidden], axis=-1) for part in (0, 1)],
    )
    add(
        keras.layers.Dense(
            len(last[0][1]), activation="softmax", kernel_regularizer=penalty, name="probabilities"
        ),
        [
            np.concatenate([kernel for kernel, _ in last]) / len(last),
            np.mean([bias for _, bias in last], axis=0),
        ],
    )
    return whole


def divide_logits(network, temperature: float) -> None:
    """Scale a network's last layer so that its softmax is taken at a temperature."""
    network.layers[-1].set_weights([values / temperature for values in network.layers[-1].get_weights()])
