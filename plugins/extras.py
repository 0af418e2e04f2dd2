"""The optional packages of nsd, by extra: what is missing here, and the one command that brings it."""

from __future__ import annotations

import re
import shlex
import sys
from importlib import metadata


def requirements(extra: str) -> list[str]:
    """The requirements of an extra, as nsd's metadata has them; [] where nsd is not installed as a distribution."""
    try:
        wanted = metadata.requires("nsd") or []
    except metadata.PackageNotFoundError:
        return []
    of_extra = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    parted = [text.partition(";") for text in wanted]
    return [name.strip() for name, _, marker in parted if of_extra.search(marker)]


def name_of(requirement: str) -> str:
    """The distribution that a requirement names."""
    return re.split(r"[\s\[<>=!~]", requirement, maxsplit=1)[0]


def missing(extra: str) -> str | None:
    """The first package of an extra that is not installed; None where all are."""
    for requirement in requirements(extra):
        name = name_of(requirement)
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return name
    return None


def install_command(extra: str, package: str = "") -> str:
    """One command that puts the packages of an extra into this Python, wherever nsd itself came from.

    The packages are named one by one: nobody answers for what an index has under the name nsd.
    """
    return pip_install(*(requirements(extra) or [package]))


def pip_install(*names: str) -> str:
    """The command that puts packages into this Python."""
    return f"{shlex.quote(sys.executable)} -m pip install {' '.join(shlex.quote(name) for name in names)}"
