"""Nothing leaves the machine: a listening proxy hears nothing, and no system call names another host."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from conftest import DATA, ROOT, run

LOOK_AT_A_FACE = {
    "main.py": ["--source", DATA / "smile.mp4", "--no-display"],
    "extract_landmarks.py": ["--images", "{pictures}", "--output", "{tmp}/x.npz"],
    "record_dataset.py": ["--source", DATA / "astronaut.jpg", "--label", "happy", "--data", "{tmp}/personal"],
    "evaluate.py": ["--images", "{pictures}", "--output", "{tmp}/report", "--model", "{bundle}"],
}


@pytest.fixture
def command(pictures, bundle, tmp_path):
    def fill(script):
        return [
            str(part).format(pictures=pictures, bundle=bundle, tmp=tmp_path)
            for part in LOOK_AT_A_FACE[script]
        ]

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
@pytest.mark.parametrize("script", LOOK_AT_A_FACE)
def test_no_system_call_names_another_host(script, command, tmp_path):
    trace = tmp_path / "trace"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=connect,sendto,sendmsg",
            "-o",
            trace,
            sys.executable,
            ROOT / "scr" / script,
            *command(script),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        env={
            key: value for key, value in os.environ.items() if key != "DISPLAY" and "proxy" not in key.lower()
        },
    )
    assert done.returncode == 0, done.stderr
    hosts = re.findall(
        r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', trace.read_text(errors="replace")
    )
    assert {v4 or v6 for v4, v6 in hosts} <= {"127.0.0.1", "::1"}
