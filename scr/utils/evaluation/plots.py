"""Figures for a report. The sole owner of matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import atomic_path


def new_figure(width: float, height: float, **style):
    """Return an empty figure of a size in inches, drawn without any display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", **style)
    FigureCanvasAgg(figure)
    return figure


def _figure(width: float, height: float, columns: int = 1):
    """Return (figure, axes)."""
    figure = new_figure(width, height)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def save_figure(figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=150, format="png")


def plot_confusion_matrix(path: Path, matrix: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Write a PNG of a confusion matrix (classes, classes + 1): shares of each row as colour, counts as text.

    The last column, 'no face', is left out if it is empty; so are rows without a picture.
    """
    matrix = np.asarray(matrix)
    rows = np.flatnonzero(matrix.sum(axis=1))
    columns = len(classes) + bool(matrix[:, -1].any())
    share = matrix[rows, :columns] / matrix[rows].sum(axis=1, keepdims=True)
    names = [*classes, "no face"][:columns]
    figure, (axis,) = _figure(1.6 + 1.05 * columns, 1.5 + 0.85 * len(rows))
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(len(rows)):
        for column in range(columns):
            axis.text(
                column,
                row,
                f"{share[row, column]:.0%}\n{matrix[rows[row], column]:,}",
                ha="center",
                va="center",
                color="white" if share[row, column] > 0.55 else "black",
                fontsize=9,
            )
    axis.set_xticks(range(columns), names)
    axis.set_yticks(range(len(rows)), [f"{classes[row]}\n(n = {matrix[row].sum():,})" for row in rows])
    axis.set(xlabel="prediction", ylabel="label", title=title)
    figure.colorbar(
        image, ax=axis, label="share of the label's pictures", format=lambda value, _: f"{value:.0%}"
    )
    save_figure(figure, path)


def plot_learning_curves(path: Path, history: dict[str, list[float]], title: str) -> None:
    """Write a PNG of loss and weighted accuracy by epoch, training against validation; the least loss is
    marked."""
    figure, axes = _figure(10, 3.8, columns=2)
    epochs = np.arange(1, len(history["loss"]) + 1)
    best = int(np.argmin(history["val_loss"]))
    for axis, key, name in zip(
        axes,
        ("loss", "accuracy"),
        ("loss, summed over networks, with penalty", "accuracy, classes weighted equally"),
    ):
        axis.plot(epochs, history[key], label="training", color="#0072B2")
        axis.plot(epochs, history[f"val_{key}"], label="validation", color="#D55E00")
        axis.axvline(best + 1, color="grey", linestyle=":", label=f"least validation loss (epoch {best + 1})")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    save_figure(figure, path)


def plot_reliability(path: Path, confidence: np.ndarray, right: np.ndarray, error: float, title: str) -> None:
    """Write a PNG of accuracy against confidence in 15 bins, with the number of faces in each.

    confidence and right (n,): of each prediction; `error` is the ECE.
    """
    from sklearn.calibration import CalibrationDisplay

    figure, (axis, counts) = _figure(8.4, 3.8, columns=2)
    name = f"measured (ECE {error:.3f})"
    CalibrationDisplay.from_predictions(
        right.astype(int), confidence, n_bins=15, pos_label=1, name=name, ax=axis, color="#0072B2"
    )
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0.2, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    counts.hist(confidence, bins=15, range=(0, 1), rwidth=0.93, color="#56B4E9")
    counts.set(xlabel="confidence", ylabel="faces", xlim=(0.2, 1))
    figure.suptitle(title)
    save_figure(figure, path)


def plot_faces(path: Path, crops: np.ndarray, captions: Sequence[str], title: str, columns: int = 8) -> None:
    """Write a PNG of crops (n, side, side) with a caption under each."""
    rows = -(-len(crops) // columns)
    figure = new_figure(1.5 * columns, 1.8 * rows + 0.5)
    figure.suptitle(title)
    for axis in (axes := figure.subplots(rows, columns, squeeze=False).ravel()):
        axis.axis("off")
    for axis, crop, caption in zip(axes, crops, captions):
        axis.imshow(crop, cmap="gray", vmin=0, vmax=255)
        axis.set_title(caption, fontsize=8)
    save_figure(figure, path)
