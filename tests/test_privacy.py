"""Nothing leaves the machine: a proxy hears nothing, no system call of a script names a host.

And no pickle is opened: the model that every script gets has a malicious one.
"""

import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest
from conftest import DATA, ROOT, run

from utils.config import EMOTIONS
from utils.data.face_set import load_face_set
from utils.data.recordings import open_recordings
from utils.files import write_json
from utils.model.bundle import JSON, digests, load_info

LOOK_AT_A_FACE = {
    "main.py": ["--source", DATA / "smile.mp4", "--no-display", "--model", "{bundle}"],
    "extract_landmarks.py": ["--images", "{pictures}", "--output", "{tmp}/x.faces"],
    "record_dataset.py": [
        *("--source", DATA / "astronaut.jpg", "--label", "happy", "--data", "{tmp}/personal", "--consent")
    ],
    "evaluate.py": ["--images", "{pictures}", "--output", "{tmp}/report", "--model", "{bundle}"],
}
LEARN = {
    "balance_dataset.py": ["--data", "{faces}", "--output", "{tmp}/balanced"],
    "train_model.py": ["--data", "{faces}", "--output", "{tmp}/model", "--epochs", "1"],
    "export_model.py": ["--model", "{bundle}", "--data", "{faces}", "--output", "{tmp}/exported"],
    "train_personal.py": [
        *("--subject", "ann", "--base", "{bundle}", "--data", "{recorded}", "--output", "{tmp}/ann"),
        *("--general", "{faces}", "--max-forgetting", "1"),
    ],
}
EVERY = LOOK_AT_A_FACE | LEARN


def test_every_script_is_traced():
    assert set(EVERY) == {path.name for path in (ROOT / "scr").glob("*.py")}


@pytest.fixture(scope="session")
def recorded(landmark_file, tmp_path_factory):
    """Two sessions of faces that were found on pictures, of a person whom every model misreads."""
    folder = tmp_path_factory.mktemp("recorded")
    data = load_face_set(landmark_file)
    label = np.roll(EMOTIONS, 1)[data.class_index(EMOTIONS)]
    for session in (0, 1):
        with open_recordings("ann", folder) as store:
            for row in range(session, len(data), 2):
                store.append(str(session), data.landmarks[row], data.blendshapes[row], label[row])
    return folder


class Evil:
    """Pickled, it makes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.fixture
def evil_bundle(bundle, tmp_path):
    """A model whose pickle runs code, and is the one that its JSON lists."""
    folder = shutil.copytree(bundle, tmp_path / "evil")
    (folder / "scaler.pkl").write_bytes(pickle.dumps(Evil(tmp_path / "opened")))
    write_json(folder / JSON, load_info(folder) | {"sha256": digests(folder)})
    return folder


def test_the_malicious_pickle_would_run(evil_bundle, tmp_path):
    joblib.load(evil_bundle / "scaler.pkl")
    assert (tmp_path / "opened").exists()


@pytest.fixture
def command(pictures, landmark_file, evil_bundle, recorded, tmp_path):
    places = {
        "pictures": pictures,
        "faces": landmark_file,
        "bundle": evil_bundle,
        "recorded": recorded,
        "tmp": tmp_path,
    }

    def fill(script):
        return [str(part).format(**places) for part in EVERY[script]]

    return fill


@pytest.fixture
def proxy():
    """A proxy that counts who calls; yields (address, callers)."""
    callers = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                callers.append(connection.recv(200))
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", callers


@pytest.mark.parametrize("script", LOOK_AT_A_FACE)
def test_a_proxy_hears_nothing(script, command, proxy):
    address, callers = proxy
    done = run(
        script,
        *command(script),
        env=dict.fromkeys(("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy"), address),
    )
    assert done.returncode == 0, done.stderr
    assert callers == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("script", EVERY)
def test_no_system_call_names_another_host(script, command, tmp_path):
    trace = tmp_path / "trace"
    done = subprocess.run(
        [*traced(trace), sys.executable, ROOT / "scr" / script, *command(script)],
        capture_output=True,
        text=True,
        timeout=280,
        env={
            key: value for key, value in os.environ.items() if key != "DISPLAY" and "proxy" not in key.lower()
        },
    )
    assert done.returncode == 0, done.stderr
    assert hosts_in(trace) <= {"127.0.0.1", "::1"}
    assert not (tmp_path / "opened").exists(), "a pickle was opened"


def traced(trace):
    """Return the beginning of a command that writes a program's calls to the network to a file."""
    # Stopping only at the calls that are traced, it is nearly as fast as without.
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", trace]


def hosts_in(trace):
    """Return the addresses in a trace."""
    found = re.findall(
        r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', trace.read_text(errors="replace")
    )
    return {v4 or v6 for v4, v6 in found}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_trace_shows_who_would_be_called(tmp_path):
    trace = tmp_path / "trace"
    call = "import socket; s = socket.socket(); s.settimeout(.2); s.connect_ex(('192.0.2.1', 9))"
    subprocess.run([*traced(trace), sys.executable, "-c", call], timeout=60)
    assert hosts_in(trace) == {"192.0.2.1"}
