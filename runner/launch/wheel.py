"""The nsd that is running, as a wheel: a machine installs this one, and asks no index for the name.

    wheel = own_wheel(folder)             # folder/nsd-0.1.0-py3-none-any.whl and folder/constraints.txt
    wheel.path, wheel.sha256

It is made of the files that `import nsd` finds, whether they were installed, or lie in a checkout, and of the metadata
of the installation. The same files and metadata give the same bytes.

`constraints.txt` has the versions of nsd's requirements that are installed here, so that the machine computes with the
same. Limits: builds of one's own (versions such as 2.14.0.dev) are left out of it, for no index has them.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from nsd.plugins.durable import write_atomically
from nsd.plugins.errors import InputError

EXTRAS = ("train", "math", "ray")  # what a machine needs, as in sky.yaml
CONSTRAINTS = "constraints.txt"
_RELEASE = re.compile(r"[0-9]+(\.[0-9]+)*(\.post[0-9]+)?")
_WHEEL = "Wheel-Version: 1.0\nGenerator: nsd\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip can say


@dataclass(frozen=True)
class Wheel:
    """A wheel and the sha256 of its bytes in hex."""

    path: Path
    sha256: str


def own_wheel(folder: Path) -> Wheel:
    """Write the wheel and its constraints into a folder. Raises InputError where this nsd is no installation."""
    about = _distribution()
    info = f"nsd-{about.version}.dist-info"
    files = {f"nsd/{name}": path.read_bytes() for name, path in package_files().items()}
    files[f"{info}/METADATA"] = _text(about, "METADATA", "PKG-INFO").encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    files[f"{info}/entry_points.txt"] = _text(about, "entry_points.txt").encode()
    lines = [f"{name},sha256={_short(content)},{len(content)}" for name, content in files.items()]
    record = f"{info}/RECORD"
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"nsd-{about.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    write_atomically(folder / CONSTRAINTS, "".join(f"{line}\n" for line in versions_here()))
    return Wheel(path, hashlib.sha256(path.read_bytes()).hexdigest())


def package_files() -> dict[str, Path]:
    """The files of the running package by their names in it, in order; no bytecode and nothing hidden.

    In a checkout `runner`, `plugins` and `reports` are links to folders, which are followed.
    """
    spec = find_spec("nsd")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places or not Path(places[0]).is_dir():
        raise InputError("this nsd is not a folder of files, so it cannot be sent to a machine: install it with pip")
    root = Path(places[0])
    return {path.relative_to(root).as_posix(): path for path in sorted(_below(root))}


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_dir():
            yield from _below(path)
        elif path.is_file():
            yield path


def versions_here() -> list[str]:
    """`NAME==VERSION` of each requirement of nsd and its EXTRAS that is installed here."""
    found = []
    for text in _distribution().requires or []:
        requirement, _, marker = text.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
        if extra is not None and extra[1] not in EXTRAS:
            continue
        name = re.split(r"[\s\[<>=!~(]", requirement.strip(), maxsplit=1)[0]
        try:
            version = metadata.version(name).partition("+")[0]  # 2.13.0+cpu: the machine takes its own build
        except metadata.PackageNotFoundError:
            continue
        if _RELEASE.fullmatch(version):
            found.append(f"{name}=={version}")
    return sorted(set(found))


def check_installation() -> None:
    """Raise InputError where this nsd could not be sent."""
    about = _distribution()
    _text(about, "METADATA", "PKG-INFO")
    _text(about, "entry_points.txt")
    package_files()


def _distribution() -> metadata.Distribution:
    try:
        return metadata.distribution("nsd")
    except metadata.PackageNotFoundError:
        raise InputError(
            "this nsd was not installed, so what it needs on a machine is not known: pip install it, from its checkout "
            "(pip install -e .) or its wheel; or name a ready environment there (--environment)"
        ) from None


def _text(about: metadata.Distribution, *names: str) -> str:
    """The first of these files of an installation that is there."""
    found = next((text for name in names if (text := about.read_text(name))), None)
    if found is None:
        raise InputError(f"this nsd's installation has lost its {names[0]}: install it again with pip")
    return found


def _short(content: bytes) -> str:
    """A hash as RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
