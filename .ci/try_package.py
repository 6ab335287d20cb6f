"""Tries the installed package in an empty folder: `python try_package.py REPOSITORY`, as .ci/run does."""

import json
import subprocess
import sys
from pathlib import Path

import emotion_detection
from emotion_detection import read_faces, read_video

repository, package = Path(sys.argv[1]), Path(emotion_detection.__file__).parent
assets = repository / "tests" / "assets"

tracked = subprocess.run(["git", "-C", repository, "ls-files", "models"], capture_output=True, text=True)
models = {path.relative_to(package).as_posix() for path in package.glob("models/**/*") if path.is_file()}
assert {"models/emotion_mlp.tflite", "models/face_landmarker.task"} <= models <= set(tracked.stdout.split())
for name in models:
    assert (package / name).read_bytes() == (repository / name).read_bytes(), name

of_group, of_landscape = read_faces([assets / "group.jpg", assets / "landscape.jpg"])
assert len(of_group) == 5 and not of_landscape
frames = list(read_video(assets / "smile.mp4"))
assert len(frames) == 72 and all(len(frame.faces) == 1 for frame in frames)
json.dumps(frames[0].to_dict("pose", "blendshapes"))

command = [Path(sys.executable).with_name("emotion-detection"), "--source", assets / "astronaut.jpg"]
command += ["--no-display", "--output", "-"]
rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
assert len(rows) == 2 and ",happy," in rows[1], rows
assert not any(Path().iterdir()), "something was left in the folder"
print(f"the wheel works: {len(models)} files of models as in git, 5 faces, 72 frames, 1 row")
