"""Each Python example of README.md, docs/python.md and docs/recipes.md runs as it stands."""

import io
import re
import shutil
import sys
import types

import matplotlib
import pytest
from conftest import DATA, ROOT, SMILE

import utils

PAGES = (ROOT / "README.md", ROOT / "docs/python.md", ROOT / "docs/recipes.md")
EXAMPLES = {
    f"{page.stem}-{number}": text
    for page in PAGES
    for number, text in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.S | re.M))
}


class FakeFastAPI(types.ModuleType):
    """As much of FastAPI as the recipe uses."""

    UploadFile = types.SimpleNamespace

    class HTTPException(Exception):
        pass

    class FastAPI:
        def post(self, path):
            return lambda function: function


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder with the files that the examples name; the package under its installed name."""
    for name, source in {"photo.jpg": "group.jpg", "landscape.jpg": "landscape.jpg"}.items():
        shutil.copy(DATA / source, tmp_path / name)
    shutil.copy(SMILE, tmp_path / "clip.mp4")
    shutil.copytree(DATA, tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"none")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "emotion_detection", utils)
    matplotlib.use("agg")
    return tmp_path


def execute(text: str) -> dict:
    names = {"__name__": "example"}
    exec(compile(text, "example", "exec"), names)
    return names


@pytest.mark.parametrize("name", [name for name, text in EXAMPLES.items() if "fastapi" not in text])
def test_examples_run(name, place):
    if "pandas" in EXAMPLES[name]:
        pytest.importorskip("pandas")
    execute(EXAMPLES[name])
    assert (place / "emotions.png").exists() == ("savefig" in EXAMPLES[name])


def test_the_web_service_answers_with_rows(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", FakeFastAPI("fastapi"))
    service = execute(next(text for text in EXAMPLES.values() if "fastapi" in text))
    upload = types.SimpleNamespace(file=io.BytesIO((DATA / "group.jpg").read_bytes()))
    assert [row["face"] for row in service["read"](upload)] == [0, 1, 2, 3, 4]
    for content in (b"", b"none"):
        with pytest.raises(FakeFastAPI.HTTPException):
            service["read"](types.SimpleNamespace(file=io.BytesIO(content)))
