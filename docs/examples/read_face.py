"""A photograph -> a face's emotion, with numpy, mediapipe and ai-edge-litert alone (docs/model_io.md).

usage: python read_face.py photo.jpg
"""

import json
import os
import sys
from pathlib import Path

import cv2  # comes with mediapipe
import mediapipe as mp
import numpy as np
from ai_edge_litert.interpreter import Interpreter

os.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"  # MediaPipe would report its use to Google
HERE = Path(__file__).resolve().parent
COPIED = (HERE / "emotion_mlp.json").exists()  # the model's files lie beside this one; else in the repository
MODELS, FACES = (HERE, HERE) if COPIED else (HERE.parents[1] / name for name in ("models", "scr/utils/faces"))
INFO = json.loads((MODELS / "emotion_mlp.json").read_text())
REFERENCE = np.array(INFO["features"]["reference"])
VOCABULARY = [*INFO.get("vocabularies", ()), INFO][0]  # the default; [-1] would be all classes
COLUMNS = [INFO["classes"].index(name) for name in VOCABULARY["classes"]]
CROP_REFERENCE = np.loadtxt(FACES / "reference_face.csv", delimiter=",") * 90 + 60


def find_face(rgb):  # -> landmarks (478, 3) in widths of the picture, blendshapes (52,)
    base = mp.tasks.BaseOptions(model_asset_path=str(MODELS / "face_landmarker.task"))
    options = mp.tasks.vision.FaceLandmarkerOptions(base_options=base, output_face_blendshapes=True)
    with mp.tasks.vision.FaceLandmarker.create_from_options(options) as landmarker:
        for _ in range(2):  # the second time on a copy on which the face is 75 pixels wide, or as it is
            found = landmarker.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb))
            if not found.face_landmarks:
                sys.exit("MediaPipe finds no face")
            face = np.array([(p.x, p.y * rgb.shape[0] / rgb.shape[1], p.z) for p in found.face_landmarks[0]])
            scale = min(1, 75 / (np.ptp(face[:468, 0]) * rgb.shape[1]))
            rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return face, np.array([shape.score for shape in found.face_blendshapes[0]])


def similarity(points, target):  # Umeyama 1991: the matrix and move that lay points on target
    middle, goal = points.mean(axis=0), target.mean(axis=0)
    u, singular, vt = np.linalg.svd((target - goal).T @ (points - middle))
    sign = np.append(np.ones(len(singular) - 1), np.sign(np.linalg.det(u @ vt)))
    matrix = (u * sign) @ vt * (singular @ sign) / np.square(points - middle).sum()
    return matrix, goal - matrix @ middle


def crop_face(rgb, landmarks):  # -> (120, 120) uint8
    matrix, move = similarity(landmarks[:468, :2] * rgb.shape[1], CROP_REFERENCE)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    while np.hypot(*matrix[0]) <= 0.5:
        grey, matrix = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), matrix * 2
    move = move + matrix @ (0.5, 0.5) - 0.5  # landmarks count from a pixel's corner, cv2 from its middle
    return cv2.warpAffine(grey, np.c_[matrix, move], (120, 120), borderMode=cv2.BORDER_REPLICATE)


def run(file, **inputs):  # -> probabilities (all classes,)
    network = Interpreter(str(MODELS / file)).get_signature_runner()
    outputs = network(**{name: x[None].astype(np.float32) for name, x in inputs.items()})
    return outputs["probabilities" if "probabilities" in outputs else "output_0"][0]


def predict(landmarks, blendshapes, crop):  # -> probabilities (classes of the vocabulary,)
    matrix, move = similarity(landmarks[:468], REFERENCE)
    features = np.append(landmarks[:468] @ matrix.T + move - REFERENCE, blendshapes)
    pixels = cv2.resize(crop[16:104, 16:104], (160, 160)).astype(np.float32)
    pixels = ((pixels - pixels.mean()) * 55 / (pixels.std() + 4) + 118).clip(0, 255)[..., None] - 117
    landmarks, crop = run("emotion_mlp.tflite", features=features), run("emotion_crop.tflite", crop=pixels)
    found = {"landmarks": landmarks, "crop": crop}
    mixed = sum(INFO["weights"][name] * np.log(found[name][COLUMNS]) for name in found)
    values = np.exp(mixed / VOCABULARY["temperature"])
    return values / values.sum()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if (picture := cv2.imread(sys.argv[1])) is None:
        sys.exit(f"no picture at {sys.argv[1]}")
    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    landmarks, blendshapes = find_face(rgb)
    probabilities = predict(landmarks, blendshapes, crop_face(rgb, landmarks))
    print({name: round(float(p), 5) for name, p in zip(VOCABULARY["classes"], probabilities)})
