"""Networks in Keras: build, fit, copy, fold into one, fine-tune, predict. With `export`, the owner of
Keras and TensorFlow."""

import os
import random
from collections.abc import Sequence

import numpy as np

from ..config import native_log_silenced
from ..data.rows import Rows
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
    x = x if isinstance(x, Rows) else Rows([x])
    # Of a million weights each is less than single precision can add to a sum near 1.
    precision = np.float32 if len(x) < MANY else np.float64
    share = np.cumsum((weight / weight.sum()).astype(precision))

    def draw():
        generator = np.random.default_rng(seed)
        for _ in range(batches):
            rows = np.minimum(np.searchsorted(share, generator.random(batch_size)), len(x) - 1)
            yield x.read(rows), target[rows]

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


def join(network, kernel: np.ndarray, bias: np.ndarray, weights: tuple[float, float], scale: float):
    """Return one network of a network of landmarks and the last layer of a crop network, which answers as
    both mixed.

    It takes features and embedding side by side, (n, d + e), the embedding divided by `scale`; kernel
    (e, classes) and bias (classes,) are the crop network's last layer, weights those of the two in the
    mixture's logits. The last layer sees the landmark network's hidden layer and the embedding: exactly so,
    since a mixture of log-probabilities is one of logits.
    """
    keras = import_keras()
    features = network.input_shape[1]
    inputs = keras.Input((features + len(kernel),))
    x = inputs[:, :features]
    for layer in network.layers[:-1]:
        copy = type(layer).from_config(layer.get_config())
        x = copy(x)
        copy.set_weights(layer.get_weights())
    last = type(network.layers[-1]).from_config(network.layers[-1].get_config())
    joined = keras.Model(inputs, last(keras.layers.Concatenate()([x, inputs[:, features:]])), name=NAME)
    of_landmarks, of_crop = weights
    own_kernel, own_bias = network.layers[-1].get_weights()
    last.set_weights(
        [
            np.concatenate([of_landmarks * own_kernel, of_crop * scale * kernel]),
            of_landmarks * own_bias + of_crop * bias,
        ]
    )
    return joined


def with_new_last_layer(network, classes: int):
    """Return a network that shares all layers of another but the last, a fresh one for some classes."""
    keras = import_keras()
    config = network.layers[-1].get_config() | {"units": classes}
    last = keras.layers.Dense.from_config(config)
    return keras.Model(network.inputs[0], last(network.layers[-1].input), name=NAME)


def last_hidden(network, x: np.ndarray) -> np.ndarray:
    """Return what a network's last layer is given (n, h) of what the network sees (n, d)."""
    before = import_keras().Model(network.inputs[0], network.layers[-1].input)
    return before.predict(x, batch_size=4096, verbose=0)


def set_nearest_mean(network, x: np.ndarray, label: np.ndarray) -> None:
    """Set a network's last layer so that it answers with the class whose mean is nearest in the layer
    before it.

    x (n, d) what the network sees, label (n,) the class index. Nearest class mean (Mensink et al. 2013), the
    distances taken in units of the mean square distance of a face from its own class's mean. A class without
    a face stays out.
    """
    last, hidden = network.layers[-1], last_hidden(network, x)
    present = np.unique(label)
    means = np.stack([hidden[label == index].mean(axis=0) for index in present])
    spread = np.square(hidden - means[np.searchsorted(present, label)]).sum(axis=1).mean() + 1e-6
    kernel, bias = (np.zeros_like(values) for values in last.get_weights())
    bias[:] = -1e4
    kernel[:, present] = (2 * means / spread).T
    bias[present] = -np.square(means).sum(axis=1) / spread
    last.set_weights([kernel, bias])


def divide_logits(network, temperature: float) -> None:
    """Scale a network's last layer so that its softmax is taken at a temperature."""
    network.layers[-1].set_weights([values / temperature for values in network.layers[-1].get_weights()])


def copy_network(network, reset: bool = False):
    """Return a copy of a network with its weights, or with fresh ones."""
    copy = type(network).from_config(
        network.get_config()
    )  # clone_model would want the loss function back by its name
    for old, new in zip(network.layers, copy.layers, strict=True):
        if not (reset and old.trainable):  # the projection is no weight to be learned: it stays
            new.set_weights(old.get_weights())
    return copy


def freeze_early_layers(network, trainable: int | None) -> None:
    """Leave only the last `trainable` Dense layers (and what stands between them) trainable; None: all
    that were."""
    keras = import_keras()
    dense = [
        index
        for index, layer in enumerate(network.layers)
        if isinstance(layer, keras.layers.Dense) and layer.trainable
    ]
    first = 0 if trainable is None or trainable >= len(dense) else dense[-trainable]
    for layer in network.layers[:first]:
        layer.trainable = False


class Tuner:
    """Fine-tunes copies of one network, all by the same layers and rate; compiled once, which takes
    longer than a fit."""

    def __init__(self, network, trainable: int | None, learning_rate: float):
        state = random.getstate()
        self._network = copy_network(network)
        random.setstate(
            state
        )  # Keras draws the seeds of layers from it: the networks to be trained get the same ones
        freeze_early_layers(self._network, trainable)
        self._network.compile(
            import_keras().optimizers.Adam(learning_rate), "sparse_categorical_crossentropy"
        )
        self._network.optimizer.build(self._network.trainable_variables)
        self._fresh = [value.numpy() for value in self._network.optimizer.variables]

    def fit(self, network, train: tuple, steps: int, batch_size: int = 32) -> None:
        """Train a copy on a few samples (features, class index, weight) for a fixed number of steps."""
        for variable, value in zip(self._network.optimizer.variables, self._fresh):
            variable.assign(value)
        _assign_variables(self._network, network)
        batch_size = min(batch_size, len(train[0]))
        generator = np.random.default_rng(0)
        passes = -(-steps * batch_size // len(train[0]))
        rows = np.concatenate([generator.permutation(len(train[0])) for _ in range(passes)])
        rows = rows[: steps * batch_size]
        # All passes in one epoch: with a dozen samples, Keras spends its time between epochs.
        self._network.fit(
            *(values[rows] for values in train[:2]),
            sample_weight=train[2][rows],
            epochs=1,
            batch_size=batch_size,
            shuffle=False,
            verbose=0,
        )
        _assign_variables(network, self._network)


def _assign_variables(network, other) -> None:
    """Give a network the weights, and the states of the random generators, of another of the same layers."""
    for one, source in zip(network.layers, other.layers, strict=True):
        for variable, value in zip(one.variables, source.variables, strict=True):
            variable.assign(value)
