"""A face and what the shipped model answers to it -> docs/test_vector.json, for programs of others.

    python tests/measure/write_vector.py

Run it when the shipped model changes. The file holds the two looks that main.py takes at the smallest face
of a picture in tests/assets (as it is and mirrored), what each network answers to the first, and main.py's
answer.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scr"))

from utils.app.pipeline import FaceReader
from utils.config import MODELS, atomic_path
from utils.faces.crops import crop_face
from utils.faces.images import load_picture
from utils.faces.landmarker import FaceLandmarker
from utils.model.classifier import EmotionClassifier

PICTURE = "tests/assets/group.jpg"
VECTOR = ROOT / "docs" / "test_vector.json"


def main() -> None:
    image = load_picture(ROOT / PICTURE).image
    with FaceLandmarker(max_faces=None) as landmarker:
        face, mirrored = landmarker.detect_mirrored(image)[-1]  # the one it is least sure of
    looks = [
        (one.landmarks, one.blendshapes, crop_face(np.ascontiguousarray(seen), one.landmarks))
        for one, seen in ((face, image), (mirrored, image[:, ::-1]))
    ]
    first = {}
    for network in ("landmarks", "crop", "hybrid"):
        landmarks, blendshapes, crop = looks[0]
        model = EmotionClassifier(network)
        first[network] = model.predict(landmarks[None], blendshapes[None], crops=crop[None])[0]
    with FaceReader(str(MODELS), still=True, max_faces=None, smoothing_ms=0) as reader:
        answer = reader.read_with_mirror(image)[1][-1]
    content = {
        "picture": PICTURE,
        "classes": list(model.classes),
        "looks": [
            {
                "landmarks": plain(landmarks),
                "blendshapes": plain(blendshapes),
                "crop": base64.b64encode(crop.tobytes()).decode(),
            }
            for landmarks, blendshapes, crop in looks
        ],
        "first_look": {name: plain(values) for name, values in first.items()},
        "answer": plain(answer),
    }
    with atomic_path(VECTOR) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(f"wrote {VECTOR.relative_to(ROOT)}: {dict(zip(model.classes, content['answer']))}")


def plain(values: np.ndarray) -> list:
    """Return float32 numbers as the shortest ones that are read back the same."""
    return [plain(one) if one.ndim else float(str(one)) for one in np.asarray(values, np.float32)]


if __name__ == "__main__":
    main()
