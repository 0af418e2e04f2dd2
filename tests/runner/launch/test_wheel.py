"""The nsd that goes to a machine: a wheel of whatever is running, the same bytes from the same installation."""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.launch.wheel import check_installation, own_wheel, package_files, versions_here
from support import REPOSITORY


@pytest.mark.slow
def test_the_same_installation_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = own_wheel(tmp_path / "a"), own_wheel(tmp_path / "b")
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.sha256 == two.sha256 == hashlib.sha256(one.path.read_bytes()).hexdigest()


def test_it_has_every_file_of_the_product_and_no_other() -> None:
    product = {
        f"{room}/{path.relative_to(REPOSITORY / room).as_posix()}"
        for room in ("runner", "plugins", "reports")
        for path in (REPOSITORY / room).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert set(package_files()) == {*product, "__init__.py", "__main__.py"}


def test_its_list_is_right(tmp_path: Path) -> None:
    with zipfile.ZipFile(own_wheel(tmp_path).path) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith("/RECORD"))
        rows = list(csv.reader(io.StringIO(archive.read(name).decode())))
        assert [row[0] for row in rows] == archive.namelist() and rows[-1] == [name, "", ""]
        for path, said, size in rows[:-1]:
            content = archive.read(path)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (said, int(size)) == (f"sha256={digest}", len(content))


def test_its_commands_are_those_of_the_project(tmp_path: Path) -> None:
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    with zipfile.ZipFile(own_wheel(tmp_path).path) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith("/entry_points.txt"))
        said = configparser.ConfigParser()
        said.read_string(archive.read(name).decode())
    assert {group: dict(said[group]) for group in said.sections()} == {"console_scripts": scripts}


def test_what_is_installed_without_its_commands_is_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wheel of it would install, and have no `nsd` to run."""
    there = metadata.PathDistribution.read_text
    monkeypatch.setattr(
        metadata.PathDistribution,
        "read_text",
        lambda self, name: None if name == "entry_points.txt" else there(self, name),
    )
    for refused in (check_installation, lambda: own_wheel(tmp_path)):
        with pytest.raises(InputError, match=r"installation has lost its entry_points\.txt"):
            refused()


def test_versions_are_those_that_compute_here() -> None:
    found = dict(line.split("==") for line in versions_here())
    assert found["trl"] == metadata.version("trl") and "+" not in found["torch"]
    assert {"math-verify", "pydantic", "transformers"} <= set(found)
    assert "pytest" not in found and "skypilot" not in found


def test_a_build_of_ones_own_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.14.0.dev20260101" if name == "torch" else there(name))
    assert not [line for line in versions_here() if line.startswith("torch")]


def test_an_nsd_that_was_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nothing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", nothing)
    with pytest.raises(InputError, match="this nsd was not installed"):
        own_wheel(tmp_path)


AGAIN = (
    "import sys; from pathlib import Path; import nsd.runner.launch.wheel as wheel\n"
    "assert Path(wheel.__file__).is_relative_to(sys.prefix), wheel.__file__\n"
    "print(wheel.own_wheel(Path(sys.argv[1])).sha256)"
)


@pytest.mark.slow
def test_what_is_installed_from_it_runs_and_gives_it_again(tmp_path: Path) -> None:
    wheel = own_wheel(tmp_path / "first")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", venv, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel.path], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    # What it needs is borrowed; the .pth files in there, by which nsd may be installed to be edited, are not read.
    (site / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    told = subprocess.run([venv / "bin/nsd", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "one YAML spec in" in told.stdout
    words = [venv / "bin/python", "-P", "-c", AGAIN, tmp_path / "second"]
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == wheel.sha256
