"""A second opinion on what is recorded: where the general model is sure that a face shows another emotion."""

from collections import Counter

import numpy as np

from ..config import MODELS, UserError
from ..faces.crops import crop_faces

SURE = 0.9
"""Probability from which the general model's answer counts as sure."""


class Doubts:
    """Says where the general model is sure that a face shows another of its emotions than its label.

    The user is asked once for each pair of label and answer, and nothing is left out in silence.
    """

    def __init__(self, model=MODELS):
        from ..model.classifier import EmotionClassifier

        self.answers: dict[tuple[str, str], bool] = {}
        """whether to keep samples of a label that look like another emotion, by (label, emotion)"""
        self.kept = Counter()
        """samples kept without having been asked about, by (label, emotion)"""
        try:
            self.classifier = EmotionClassifier(model)
        except UserError:  # no general model at hand: nobody doubts
            self.classifier = None

    def looks(self, face, label: str, image: np.ndarray) -> str:
        """Return the emotion that a face labelled `label` on an image surely shows instead, or ""."""
        if self.classifier is None or label not in self.classifier.classes:
            return ""
        crops = crop_faces(image, [face.landmarks]) if self.classifier.needs_crops else None
        prediction = self.classifier.predict(face.landmarks[None], face.blendshapes[None], crops)
        probabilities = prediction.probabilities[0]
        best = int(probabilities.argmax())
        seen = self.classifier.classes[best]
        return seen if seen != label and probabilities[best] >= SURE else ""


def question(label: str, seen: str) -> str:
    """Return what is asked about a sample."""
    return f"this looks {seen}: keep it as {label}?"
