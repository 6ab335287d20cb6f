"""A face and what the shipped model's networks make of it -> docs/test_vector.json, for programs of others.

    python tests/measure/write_vector.py

Run it when the shipped model changes. The file holds the smallest face of a picture in tests/assets as
main.py reads it, and the probabilities that each network gives of all its classes; those of the hybrid are
main.py's, of its default vocabulary.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))

from utils.faces.crops import crop_face
from utils.faces.images import load_picture
from utils.faces.landmarker import FaceLandmarker
from utils.files import atomic_path
from utils.model.classifier import EmotionClassifier

PICTURE = "tests/assets/group.jpg"
VECTOR = ROOT / "docs" / "test_vector.json"


def main() -> None:
    image = load_picture(ROOT / PICTURE).image
    landmarker = FaceLandmarker(max_faces=None)
    face = landmarker.detect_picture(image)[-1]  # the one it is least sure of
    crop = crop_face(image, face.landmarks)
    probabilities = {}
    for network in ("landmarks", "crop", "hybrid"):
        model = EmotionClassifier(network, None if network == "hybrid" else "all")
        probabilities[network] = model.predict(
            face.landmarks[None], face.blendshapes[None], crop[None]
        ).probabilities[0]
    content = {
        "picture": PICTURE,
        "classes": list(model.classes),
        "landmarks": plain(face.landmarks),
        "blendshapes": plain(face.blendshapes),
        "crop": base64.b64encode(crop.tobytes()).decode(),
        "probabilities": {name: plain(values) for name, values in probabilities.items()},
    }
    with atomic_path(VECTOR) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(f"wrote {VECTOR.relative_to(ROOT)}: {content['probabilities']['hybrid']}")


def plain(values: np.ndarray) -> list:
    """Return float32 numbers as the shortest ones that are read back the same."""
    return [plain(one) if one.ndim else float(str(one)) for one in np.asarray(values, np.float32)]


if __name__ == "__main__":
    main()
