"""What goes to a machine with a spec: the files that it names, and nothing else of the folder that they lie in.

    along = files_of(spec, plan, more=("tables",))     # paths here, and where they will lie
    along.copy(folder)                                 # the same layout below `folder`; `along.spec` is the spec in it

With the spec go what it extends, its data files, the files beside those that their rows name, local models, and plugin
files with what they import from beside them. A file that is named relatively may lie outside the spec's folder: what
goes is laid out from the folder that holds all of it. A file that is named by an absolute path does not go (`elsewhere`
has its name), for the machine would not look for it where it was put.

Limits: a file that a plugin opens by itself is not known; `more` (`nsd launch --send`) names it. Folders go without
what is hidden in them (.git, .env) and without workspaces.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsd.plugins import registry
from nsd.plugins.api import Question
from nsd.plugins.code import files_reached
from nsd.plugins.errors import InputError
from nsd.plugins.places import absolute
from nsd.plugins.side_files import SideFile
from nsd.runner.plan.model import Plan
from nsd.runner.spec.errors import Problems
from nsd.runner.spec.merge import BLOCKS
from nsd.runner.spec.model import Block, Experiment, at
from nsd.runner.spec.yaml import Item, read_yaml

LEFT_HERE = ("__pycache__", "nsd-workspace")


@dataclass
class Along:
    """`files`: where a file will lie, as a path here, -> the file it is. `elsewhere`: absolute paths that are named."""

    place: Path  # of the spec
    files: dict[Path, Path] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The folder that holds all of it."""
        return Path(os.path.commonpath([path.parent for path in self.files]))

    @property
    def spec(self) -> str:
        """The spec, counted from the root."""
        return self.place.relative_to(self.root).as_posix()

    @property
    def names(self) -> list[str]:
        """Every file, counted from the root; the spec first."""
        root = self.root  # it is counted over all files
        names = sorted(path.relative_to(root).as_posix() for path in self.files)
        spec = self.place.relative_to(root).as_posix()
        return [spec, *(name for name in names if name != spec)]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())

    def copy(self, folder: Path) -> None:
        """Put them below a folder."""
        root = self.root
        for place, file in self.files.items():
            to = folder / place.relative_to(root)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)

    def add(self, place: Path, file: Path) -> None:
        """A file, or all of a folder. Raises InputError for what cannot be sent, be it the least in a folder."""
        if file.is_dir():
            for inner in sorted(file.iterdir()):
                if not inner.name.startswith(".") and inner.name not in LEFT_HERE:
                    self.add(place / inner.name, inner)
        elif file.is_file():
            self.files[place] = file
        else:
            why = "a link that leads nowhere" if file.is_symlink() else "no file" if file.exists() else "not there"
            raise InputError(
                f"{place} goes to the machine with what the spec or --send names, and it is {why}: mend it, or take it "
                "away from there"
            )


def files_of(spec: Path, plan: Plan, more: Iterable[str] = ()) -> Along:
    """What goes with a spec that was read and planned here. Raises InputError for what cannot be sent."""
    along = Along(_flat(spec))
    folders: dict[Path, Path] = {}  # where a data file or plugin really lies -> where it is named
    known = named_paths(plan.experiment)
    for folder, text in _texts(spec, along):
        is_plugin = registry.is_path(text)
        name = text.rpartition(":")[0] if is_plugin else text
        try:
            there = absolute(name, folder)
        except InputError:  # a text that is no path
            continue
        if there not in known and not (is_plugin and there.is_file()):
            continue
        if name.startswith(("/", "~")):
            along.elsewhere.append(name)
            continue
        place = _flat(folder / name)
        folders.setdefault(there.parent, place.parent)
        if is_plugin:
            for one in files_reached(there):
                along.add(place.parent / one.relative_to(there.parent), one)
        else:
            along.add(place, there)
    for side in sorted(_side_files(plan)):
        source = next((one for one in folders if side.is_relative_to(one)), None)
        if source is not None:
            along.add(folders[source] / side.relative_to(source), side)
        else:
            along.elsewhere.append(str(side))
    for name in more:
        if not Path(name).exists():
            raise InputError(f"--send {name}: there is no such file or folder")
        along.add(_flat(Path(name)), Path(name))
    along.elsewhere = list(dict.fromkeys(along.elsewhere))
    return along


def named_paths(experiment: Experiment) -> set[Path]:
    """The absolute paths of all that the blocks of an experiment name: data, models, plugin files."""
    found: set[Path] = set()
    for condition in experiment.conditions.values():
        for key in BLOCKS:
            if (block := getattr(condition, key)) is not None:
                found |= _paths_in(block)
        if condition.weights.startswith("/"):
            found.add(Path(condition.weights))
    return found


def _paths_in(block: Block[Any]) -> set[Path]:
    config = block.config.model_dump(mode="json")
    found = {Path(value) for steps in block.texts if isinstance(value := at(config, steps), str)}
    if registry.is_path(block.use):
        found.add(Path(block.place.rpartition(":")[0]))
    return found.union(*(_paths_in(inner) for inner in block.nested.values()))


def _texts(spec: Path, along: Along) -> Iterator[tuple[Path, str]]:
    """Every text of a spec and of what it extends, with the folder it counts from; the files are taken along."""
    file: Path | None = spec
    while file is not None:
        raw = read_yaml(file, str(file), Problems())
        if raw is None:
            raise InputError(f"{file} cannot be read any more")
        along.add(_flat(file), file)
        parent = raw.mapping.get("extends")
        for text in _scalars(raw):
            yield file.parent.absolute(), text
        above = parent.value if parent is not None else None
        if isinstance(above, str) and Path(above).is_absolute():
            along.elsewhere.append(above)
            return
        file = file.parent / above if isinstance(above, str) else None


def _scalars(item: Item) -> Iterator[str]:
    if isinstance(item.value, str) and item.value:
        yield item.value
    for inner in [*item.mapping.values(), *item.items]:
        yield from _scalars(inner)


def _side_files(plan: Plan) -> set[Path]:
    """Of all rows, whether or not the plan takes them: the machine reads them all before it splits them."""
    if not any(_sides(questions) for questions in plan.data.values()):
        return set()
    found: set[Path] = set()
    for block in {id(one): one for one in (arm.data for arm in plan.experiment.conditions.values())}.values():
        pools = block.make().pools()
        found |= _sides([*pools.train, *(pools.test or ()), *(pools.unlabeled or ())])
    return found


def _sides(questions: Iterable[Question]) -> set[Path]:
    values = (value for question in questions for value in question.meta.values())
    return {value.path for value in values if isinstance(value, SideFile)}


def _flat(path: Path) -> Path:
    """Absolute and without `..`, links left as they are: a copy has folders where there are links here."""
    return Path(os.path.abspath(path))  # noqa: PTH100
