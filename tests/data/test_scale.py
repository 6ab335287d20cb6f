"""What a set of any size needs: rows read from disk, neighbours found without comparing all, flat memory."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from utils.config import ROOT, UserError
from utils.data.arrays import Rows, store
from utils.data.face_set import load_face_set, save_face_set


def test_rows_of_a_file_that_was_replaced_are_refused(landmark_file, tmp_path):
    data = load_face_set(landmark_file)
    save_face_set(tmp_path / "a.faces", data)
    before = load_face_set(tmp_path / "a.faces")
    np.testing.assert_array_equal(before.landmarks[:, [33, 263], :2], data.landmarks[:][:, [33, 263], :2])
    np.testing.assert_array_equal(before.landmarks[-1], data.landmarks[:][-1])
    save_face_set(tmp_path / "a.faces", data.select(np.arange(len(data))[::-1]))
    with pytest.raises(UserError, match="changed"):
        before.landmarks[:]


def test_rows_are_chosen_and_joined_as_arrays_are(landmark_file, tmp_path):
    stored = load_face_set(landmark_file).landmarks
    plain = stored[:]
    few = store(tmp_path / "few", [plain[:3, :468].copy(), plain[3:5, :468].copy()])
    rows = Rows([stored, few]).choose(np.arange(len(plain) + 5)[::-1])
    expected = np.concatenate([plain[:, :468], plain[:5, :468]])[::-1]
    assert rows.shape == expected.shape and rows.dtype == expected.dtype
    mask = expected[:, 0, 0] > np.median(expected[:, 0, 0])
    for key in (slice(None), mask, [0, 7, 3], 4, -1, slice(0), (slice(None), [33, 263], 1), (2, 5), (..., 0)):
        np.testing.assert_array_equal(rows[key], expected[key])
    np.testing.assert_array_equal(np.asarray(rows.choose(mask)), expected[mask])


def test_what_the_network_sees_is_the_same_in_chunks(landmark_file, tmp_path, monkeypatch):
    from utils.faces.features import compute_features, fit_recipe, mirror_faces, mirror_map
    from utils.training import landmark_network

    data = load_face_set(landmark_file)
    recipe = fit_recipe("aligned", data.landmarks, blendshapes=True)
    partner = mirror_map(np.array(recipe["reference"]))
    images = mirror_faces(data.landmarks[:], data.blendshapes, partner)
    faces = (data.landmarks[:], data.blendshapes), images
    whole = np.concatenate([compute_features(*both, recipe) for both in faces])

    monkeypatch.setattr(landmark_network, "CHUNK", 50)
    chunks = list(landmark_network.feature_chunks(data, recipe, partner))
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    np.testing.assert_array_equal(store(tmp_path / "x", chunks)[:], whole)
    scaler = landmark_network.fit_scaler(chunks)
    np.testing.assert_allclose(scaler.mean_, whole.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-7)
    deviation = np.maximum(whole.std(axis=0, dtype=np.float64), landmark_network.LEAST_SCALE)
    np.testing.assert_allclose(scaler.scale_, deviation, rtol=1e-5)


PEAK = """
import resource, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from utils.data.face_set import concatenate, load_face_set, save_face_set
from utils.data.splits import assign_split
from utils.training.landmark_network import feature_chunks, fit_scaler
from utils.faces.features import fit_recipe
data = assign_split(concatenate([load_face_set(Path(sys.argv[1]))]).select(np.arange(int(sys.argv[2]))))
train = data.part("train")
scaler = fit_scaler(feature_chunks(train, fit_recipe("aligned", train.landmarks, True)))
save_face_set(Path(sys.argv[1]).with_name("again.faces"), data)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux counts it")
def test_memory_hardly_grows_with_the_set(landmark_file, tmp_path):
    data = load_face_set(landmark_file)
    few, many = 8_000, 24_000
    rows = np.arange(many) % len(data)
    whole = replace(
        data.select(rows),
        crop=None,
        sha256=np.array([f"{row:064x}" for row in range(many)]),
        split=np.full(many, ""),
        subject=np.full(many, ""),
    )
    save_face_set(tmp_path / "many.faces", whole)
    peaks = []
    for count in (few, many):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, tmp_path / "many.faces", str(count)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "scr")},
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    landmarks_mb = (many - few) * 478 * 3 * 4 / 1e6  # of the further faces: every whole copy would add these
    assert peaks[1] - peaks[0] < landmarks_mb
