"""nsd as others install it: a wheel and a source distribution, among strangers that bear the names of our folders.

One installation is shared: the wheel, a distribution with top-level packages `plugins`, `runner` and `reports`, and one
with a plugin behind an entry point. Commands run in a folder of files by those names. Whatever a stranger's code
runs, it writes down. What nsd depends on comes from the environment of the tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.command_line import environment
from support import PATIENCE, REPOSITORY, made_once

pytestmark = pytest.mark.slow

LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "nsd-workspace")
STRANGER = (
    "import os\nopen(os.environ['STRANGERS'], 'a').write(__file__ + '\\n')\nraise RuntimeError('a stranger ran')\n"
)
SHOUT = """\
from nsd import Verifier, plugin


@plugin("verifier", "shout")
class Shout(Verifier):
    def extract(self, completion):
        return completion.split()[-1].lower().strip("!")
"""
REPLAYED = """\
name: replayed
data: {use: jsonl, train: rows.jsonl, test: rows.jsonl}
verifier: VERIFIER
engine: {use: replay, path: said.jsonl, fields: {completion: said}}
conditions: {base: {train_on: []}}
"""
TINY = """\
name: tiny
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 16, unlabeled: 8, test: 8}}
labeler: {use: consensus, k: 2, max_tokens: 8}
trainer: {use: sft, epochs: 1, batch_size: 8}
eval: {use: accuracy, max_tokens: 8}
seeds: [7]
conditions:
  baseline: {train_on: [labeled]}
  student: {train_on: [labeled, pseudo], label_with: baseline}
"""


def python(code: str, *arguments: str, cwd: Path) -> None:
    """Run Python and fail with what it said."""
    done = subprocess.run(
        [sys.executable, *([] if code == "-m" else ["-c"]), code, *arguments], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def wheel_of(source: Path, to: Path) -> Path:
    """The wheel that pip builds of a folder or a source distribution."""
    options = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(to)]
    python("-m", "pip", *options, str(source), cwd=to.parent)
    (wheel,) = to.glob("*.whl")
    return wheel


def written_wheel(folder: Path, name: str, files: dict[str, str], points: str = "") -> Path:
    """Another distribution, as a wheel."""
    info = f"{name}-1.0.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))
    return wheel


def install(folder: Path) -> None:
    """Build everything below `folder`; `folder/venv` is the environment."""
    checkout = folder / "checkout"
    shutil.copytree(REPOSITORY, checkout, symlinks=True, ignore=LEFT_OUT)
    (folder / "sdist").mkdir()
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    python(build, str(folder / "sdist"), cwd=checkout)
    wheels = [
        wheel_of(checkout, folder / "wheel"),
        written_wheel(
            folder, "strangers", {f"{name}/__init__.py": STRANGER for name in ("plugins", "runner", "reports")}
        ),
        written_wheel(folder, "shouting", {"shouting.py": SHOUT}, "[nsd.plugins]\nverifier.shout = shouting:Shout\n"),
    ]
    python("-m", "venv", "--without-pip", str(folder / "venv"), cwd=folder)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # Behind its own packages those of the tests' environment, as plain folders: their .pth files, with which nsd is
    # installed there to be edited, are not read.
    (site / "behind.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    options = ["--python", str(folder / "venv"), "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    python("-m", "pip", *options, *map(str, wheels), cwd=folder)


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "installation", install)


Command = Callable[..., str]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with files and packages by the names of our folders, and specs."""
    for name in ("runner.py", "reports.py", "plugins/__init__.py", "nsd-workspace/__init__.py", "torch.py", "json.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(STRANGER)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "rows.jsonl").write_text('{"question": "Capital of France?", "answer": "paris"}\n')
    (tmp_path / "said.jsonl").write_text(json.dumps({"question": "Capital of France?", "said": "It is PARIS!"}) + "\n")
    return tmp_path


@pytest.fixture
def nsd(installation: Path, here: Path) -> Command:
    """Runs the installed `nsd` in that folder; no stranger's code may run."""

    def run(*arguments: str) -> str:
        ran = here / "strangers.txt"
        outside = {name: text for name, text in environment().items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [installation / "venv" / "bin" / "nsd", *arguments],
            cwd=here,
            env={**outside, "STRANGERS": str(ran)},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        assert not ran.exists(), ran.read_text()
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_installed_one_runs(installation: Path) -> None:
    """Else every test here would test the checkout."""
    code = "import nsd.runner.cli.app as app; print(app.__file__)"
    done = subprocess.run(
        [installation / "venv" / "bin" / "python", "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(installation / "venv")


def test_the_strangers_are_there(installation: Path, tmp_path: Path) -> None:
    """Else nothing of theirs could run."""
    for name in ("plugins", "runner", "reports"):
        done = subprocess.run(
            [installation / "venv" / "bin" / "python", "-P", "-c", f"import {name}"],
            env={**os.environ, "STRANGERS": str(tmp_path / "ran")},
            capture_output=True,
            text=True,
        )
        assert "RuntimeError: a stranger ran" in done.stderr
    assert len((tmp_path / "ran").read_text().splitlines()) == 3


def test_a_spec_is_validated_and_planned_among_strangers(nsd: Command) -> None:
    assert "tiny.yaml" in nsd("validate", "tiny.yaml")
    assert nsd("plan", "tiny.yaml").startswith("tiny: 2 runs")


def means(nsd: Command, spec: str) -> dict[str, float]:
    """Run a spec; every run with its result."""
    nsd("run", spec)
    return {run["run"]: run["mean"] for run in json.loads(nsd("runs", "--json"))["runs"]}


def test_the_embedded_model_trains_labels_and_answers_among_strangers(nsd: Command, here: Path) -> None:
    assert set(means(nsd, "tiny.yaml")) == {"tiny/baseline/seed7", "tiny/student/seed7"}
    nsd("report", "tiny.yaml", "--html", "page.html")
    assert "<html" in (here / "page.html").read_text()


def test_a_plugin_behind_an_entry_point_runs(nsd: Command, here: Path) -> None:
    (here / "spec.yaml").write_text(REPLAYED.replace("VERIFIER", "shout"))
    assert list(means(nsd, "spec.yaml").values()) == [1.0]


def test_a_plugin_in_a_file_runs(nsd: Command, here: Path) -> None:
    (here / "loud.py").write_text(SHOUT.replace('"shout"', '"loud"').replace(".lower()", ""))
    (here / "spec.yaml").write_text(REPLAYED.replace("VERIFIER", "{use: './loud.py:Shout'}"))
    assert list(means(nsd, "spec.yaml").values()) == [0.0]  # PARIS is not paris


def contents(wheel: Path) -> dict[str, str]:
    """The sha256 of everything in a wheel but its own list."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if not name.endswith("/RECORD")
        }


def test_the_wheel_has_every_file_of_the_product(installation: Path) -> None:
    (wheel,) = (installation / "wheel").glob("*.whl")
    product = {
        f"nsd/{path.relative_to(REPOSITORY).as_posix()}"
        for room in ("runner", "plugins", "reports")
        for path in (REPOSITORY / room).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in contents(wheel) if name.startswith("nsd/")} == {
        *product,
        "nsd/__init__.py",
        "nsd/__main__.py",
    }


def test_the_source_distribution_makes_the_same_wheel(installation: Path, tmp_path: Path) -> None:
    (archive,) = (installation / "sdist").glob("*.tar.gz")
    with tarfile.open(archive) as inside:
        assert not [name for name in inside.getnames() if "/tests" in name]
    (wheel,) = (installation / "wheel").glob("*.whl")
    assert contents(wheel_of(archive, tmp_path / "again")) == contents(wheel)
