r"""Names that come from outside, made into paths that stay inside.

    inside(workspace.artifacts, "train-0a1b")           # a folder of the workspace
    inside(staging, "model/model.safetensors")          # a file that a manifest names
    inside(staging, "../../x")                          # UnsafeName

A name from a manifest, a store, a record or a file is data. It is taken only where it is a plain relative path: parts
between slashes, none of them empty, `.` or `..`, none with a backslash, a control character or a drive letter before a
colon. What it leads to must lie below the folder even after links were followed.

Limits: a link that somebody plants between the check and the use is not seen.
"""

from __future__ import annotations

import re
from pathlib import Path

from nsd.plugins.errors import InputError

LONGEST_PART = 255  # bytes, what file systems allow
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\\\\]")
_DRIVE = re.compile("[A-Za-z]:")


class UnsafeName(InputError):
    """A name from outside that could lead out of its folder."""


def checked(name: object) -> str:
    """The name, where it is a plain relative path. Raises UnsafeName."""
    if not isinstance(name, str) or _DRIVE.match(name) or _FORBIDDEN.search(name):
        raise UnsafeName(f"{name!r} is no name of a file inside its folder")
    for part in name.split("/"):
        if part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > LONGEST_PART:
            raise UnsafeName(f"{name!r} is no name of a file inside its folder")
    return name


def part(name: object) -> str:
    """The name, where it is one plain part of a path: a digest, an experiment, a hash. Raises UnsafeName."""
    if "/" in checked(name):
        raise UnsafeName(f"{name!r} is no name of a file inside its folder")
    return str(name)


def is_part(name: object) -> bool:
    """Whether `part` takes it."""
    try:
        part(name)
    except UnsafeName:
        return False
    return True


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, which lies in `folder` whatever links are on the way. Raises UnsafeName."""
    path = folder / checked(name)
    if "/" not in name and not path.is_symlink():  # what is no link leads nowhere else
        return path
    try:
        leads_out = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # links in a circle
        raise UnsafeName(f"{path} leads nowhere ({error})") from None
    if leads_out:
        raise UnsafeName(f"{path} is a link that leads out of {folder}")
    return path
