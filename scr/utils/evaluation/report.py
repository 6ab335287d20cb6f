"""What a model learned from a folder of pictures, as a page for whoever took them: one file, no network."""

import base64
import html
import string
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.face_set import FaceSet
from ..data.prepared import Prepared
from ..faces.images import import_cv2
from ..files import atomic_path
from .advice import advise
from .metrics import MISSED, confusions
from .predictions import Predictions

PAGE = "report.html"
TEMPLATE = Path(__file__).with_name("report.html")
MOST_MISTAKES = 12
MARGIN_PX = 16
"""Of the crops, which is left out: mostly border."""


def write_report(
    folder: Path, faces: Prepared, test: Predictions, how: Sequence[str], commands: Sequence[str]
) -> Path:
    """Write the page into a model's folder, which has its confusion matrix, and return its path.

    It holds pictures of people, and is readable by its owner alone. faces: what was learned and tested on;
    test: what the model predicts for the test part, as `Pictures.of_set` orders it; how: sentences on the
    training; commands: what to type next.
    """
    figures = test.figures()["all"]
    sections = {
        "title": f"What {html.escape(folder.resolve().name)} learned",
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "lead": _lead(figures),
        "classes": _class_table(faces.data, figures),
        "advice": _list(advise(faces.data, faces.left_out, test)),
        "confusions": _list(confusions(figures["confusion_matrix"], test.classes)),
        "confusion_matrix": _image((folder / "confusion_matrix.png").read_bytes(), "png", "confusion matrix"),
        "mistakes": _mistakes(faces.data.part("test"), test),
        "left_out": _list([f"{count:,}: {reason}" for reason, count in faces.left_out.most_common()]),
        "training": _list(how),
        "commands": html.escape("\n".join(commands)),
    }
    page = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(sections)
    with atomic_path(folder / PAGE) as partial:
        partial.touch(mode=0o600)
        partial.write_text(page, encoding="utf-8")
    return folder / PAGE


def _lead(figures: dict) -> str:
    low, high = figures["balanced_accuracy_interval"]
    classes = len(figures["recall"])
    return (
        f"Of {figures['faces'] + figures['missed']:,} pictures that it had not seen, the model reads "
        f"<strong>{figures['balanced_accuracy']:.0%}</strong> right, each class weighing the same (95% "
        f"interval: {low:.0%} to {high:.0%}). Guessing among {classes} classes gives {1 / classes:.0%}."
    )


def _class_table(data: FaceSet, figures: dict) -> str:
    learned, test = data.select(data.split != "test"), data.part("test")
    rows = []
    for name, (recall, low, high) in figures["recall"].items():
        counts = (learned.label == name).sum(), (test.label == name).sum() + (test.missed.label == name).sum()
        bar = f'<i style="left:{low:.1%};width:{high - low:.1%}"></i><b style="left:{recall:.1%}"></b>'
        shown = *counts, f"{recall:.0%}", f"{low:.0%} to {high:.0%}", f'<div class="scale">{bar}</div>'
        rows.append("".join(f"<td>{cell}</td>" for cell in (html.escape(name), *shown)))
    return "".join(f"<tr>{row}</tr>" for row in rows)


def _mistakes(test: FaceSet, predictions: Predictions) -> str:
    """Return the faces that the model is surest of and wrong about, as the network sees them."""
    wrong = np.flatnonzero(~predictions.right & (predictions.predicted != MISSED))
    shown = []
    for row in wrong[np.argsort(-predictions.confidence[wrong])][:MOST_MISTAKES].tolist():
        read = predictions.classes[predictions.predicted[row]]
        words = f"{test.label[row]}, read as {read} ({predictions.confidence[row]:.0%})"
        crop = test.crop[row][MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
        face = _image(import_cv2().imencode(".jpg", crop)[1].tobytes(), "jpeg", words)
        file = html.escape(str(test.path[row]))
        shown.append(
            f"<figure>{face}<figcaption>{html.escape(words)}<br><small>{file}</small></figcaption></figure>"
        )
    return "".join(shown) or "<p>None on these pictures.</p>"


def _image(content: bytes, kind: str, alt: str) -> str:
    encoded = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{encoded}">'


def _list(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else "<p>Nothing.</p>"
