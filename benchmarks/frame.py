"""The frame of every benchmark: its options, its rows as they are found, and its section of RESULTS.md.

A benchmark gives a generator of rows and makes one call:

    def main() -> int:
        parser = argument_parser(__doc__)              # device=True where it computes on one
        parser.add_argument("--rounds", type=int, default=3)
        options = parser.parse_args()
        return report(options, measure(options), packages=("torch",))

`measure` yields a `Row` for each ratio, a `Package` for what another environment has, and a string for a sentence under
the table. It raises NotMeasured where something is absent (exit 0, the old section stays), and SystemExit where a check
fails (exit 1, nothing is recorded). What it prints itself is for the eye alone.

`--record` writes the section, `--record FILE` elsewhere; without it a benchmark only prints, so that a trial at a small
size overwrites nothing. A section is replaced as a whole, and one of a GPU stands beside that of the processors.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks import MODULES

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "RESULTS.md"
# Settings that change a time, or without which a benchmark measures nothing.
SETTINGS = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES", "NSD_VLLM", "NSD_TOOLS_PYTHON")
HEAD = """\
# Results

What the benchmarks found, each in its section: command, date, machine, versions, table.
`python -m benchmarks.NAME --record` replaces a section as a whole, `make bench` all of them; without `--record` a
benchmark only prints.

A ratio is nsd's value over the peer's; where there are rounds, the median over rounds in which both took their turn.
Of a rate (samples/s) more is better, of a time (s, ms) or memory (MiB) less. The load is the mean of the minute before
the start; "busy" is the share of all processors that something took in the second before it.
"""
COLUMNS = ("what", "against", "nsd", "peer", "ratio", "in processor time", "note")


class NotMeasured(Exception):
    """Something that a benchmark needs is not here; the message says what, and how to get it."""


@dataclass(frozen=True)
class Row:
    """One comparison. `own` and `other` are in `unit`; None: there is no such figure.

    `processor` is the ratio in processor time, which other work on the machine hardly moves.
    """

    what: str
    peer: str
    unit: str
    own: float | None
    other: float | None
    ratio: float | None
    note: str = ""
    processor: float | None = None

    def line(self) -> str:
        """The row for the terminal."""
        processor = "" if self.processor is None else f", {self.processor:.2f} in processor time"
        ratio = "no ratio" if self.ratio is None else f"ratio {self.ratio:.2f}"
        sides = f"{value(self.own, self.unit)}, {self.peer} {value(self.other, self.unit)}"
        return f"  {self.what}: {sides}, {ratio}{processor}{self.note and f' ({self.note})'}"

    def cells(self) -> list[str]:
        """The row of the table."""
        ratios = ["" if one is None else f"{one:.2f}" for one in (self.ratio, self.processor)]
        sides = [value(one, self.unit) for one in (self.own, self.other)]
        return [self.what, self.peer, *sides, *ratios, self.note]


@dataclass(frozen=True)
class Package:
    """A version that another environment has."""

    name: str
    version: str


@dataclass(frozen=True)
class Section:
    """A benchmark's part of RESULTS.md; `ratios` are those of its table, as printed."""

    name: str
    text: str
    ratios: frozenset[str]

    @property
    def benchmark(self) -> str:
        """The module; its section on a GPU is called by both."""
        return self.name.partition(" on ")[0]


def argument_parser(doc: str | None, *, device: bool = False) -> argparse.ArgumentParser:
    """A parser that prints the module's docstring and knows `--record`, and `--device` for one that computes on it."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = "write the section of benchmarks/RESULTS.md, or of FILE"
    parser.add_argument("--record", nargs="?", type=Path, const=RESULTS, metavar="FILE", help=words)
    if device:
        parser.add_argument("--device", default=default_device(), help="cuda where there is a GPU, else cpu")
    return parser


def default_device() -> str:
    """Where this machine computes by itself."""
    from nsd.plugins import models

    return models.default_device()


def report(
    options: argparse.Namespace, found: Iterable[Row | Package | str], packages: Sequence[str] = ("nsd",)
) -> int:
    """Print what comes, as it comes, and write the section if that was asked for. `packages` are named with versions.

    Raises whatever measuring raises, SystemExit included, before anything is written.
    """
    name = Path(sys.argv[0]).stem
    line, before = command(name, sys.argv[1:]), conditions()
    print(f"{name}, {before}", flush=True)
    rows: list[Row] = []
    notes: list[str] = []
    versions = [f"Python {platform.python_version()}", *(f"{one} {metadata.version(one)}" for one in packages)]
    try:
        for one in found:
            if isinstance(one, Row):
                rows.append(one)
                print(one.line(), flush=True)
            elif isinstance(one, Package):
                versions.append(f"{one.name} {one.version}")
            else:
                notes.append(one)
                print(f"  {one}", flush=True)
    except NotMeasured as error:
        print(f"{name}: not measured: {error}")
        return 0
    if options.record is not None:
        gpu = gpu_name(getattr(options, "device", "cpu"))
        title = name if gpu is None else f"{name} on {gpu}"
        state = [before, machine(gpu), ", ".join([*versions, commit()])]
        write(options.record, title, section(title, line, state, rows, notes))
        print(f"  recorded in {options.record.name}")
    return 0


# --------------------------------------------------------------------------- what stands in a section


def number(value: float) -> str:
    """Three figures or so: 1,995; 228; 34.7; 1.42; 0.011."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.{2 if size >= 1 else 3}f}"


def value(value: float | None, unit: str) -> str:
    """A figure with its unit; a dash where there is none."""
    return "–" if value is None else f"{number(value)} {unit}".strip()


def threads(count: int) -> str:
    """So many threads, in words."""
    return f"{count} thread{'' if count == 1 else 's'}"


def conditions() -> str:
    """Date, load and other work, before anything is measured."""
    import psutil

    date = datetime.now(UTC).date().isoformat()
    return f"{date}, load {os.getloadavg()[0]:.1f}, {psutil.cpu_percent(interval=1.0):.0f} % busy"


def machine(gpu: str | None) -> str:
    """Processor, cores that this process may use, memory, GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{processor_name()}, {cores} cores, {memory:.0f} GiB, {gpu or 'no GPU used'}"


def processor_name() -> str:
    """The model of the processor."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found[1].strip() if found else platform.machine()


def gpu_name(device: str) -> str | None:
    """The name of a device that is not the processor."""
    if device.startswith("cpu"):
        return None
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def commit() -> str:
    """The repository's commit, and whether files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    found = git("rev-parse", "--short", "HEAD")
    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no", "--", ":!*.md") else ""
    return f"commit {found}{changed}" if found else "no commit"


def command(name: str, arguments: Sequence[str]) -> str:
    """The command by the letter, without where it records, and with the last part of any absolute path."""
    set_here = [f"{one}={local(os.environ[one])}" for one in SETTINGS if one in os.environ]
    kept: list[str] = []
    given = list(arguments)
    while given:
        word = given.pop(0)
        if word == "--record":
            if given and not given[0].startswith("-"):
                given.pop(0)
        elif not word.startswith("--record="):
            kept.append(shlex.quote(local(word)))
    return " ".join([*set_here, "python", "-m", f"benchmarks.{name}", *kept])


def local(word: str) -> str:
    """A word of a command without what only this machine has: `/home/a/model` is `PATH/model`."""
    return re.sub(r"(?<![\w.])[~/][^=:,]*/([^/=:,]*)", r"PATH/\1", word)


def section(title: str, line: str, state: Sequence[str], rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A section in Markdown; columns that no row fills are left out."""
    table = [row.cells() for row in rows]
    used = [index for index, name in enumerate(COLUMNS) if name == "ratio" or any(cells[index] for cells in table)]
    lines = [f"## {title}", "", f"    {line}", "", *(f"- {one}" for one in state), ""]
    if rows:
        lines += [f"| {' | '.join(COLUMNS[index] for index in used)} |", f"|{'---|' * len(used)}"]
        lines += [f"| {' | '.join(cells[index].replace('|', '/') for index in used)} |" for cells in table]
    lines += ["", *(f"{note}\n" for note in notes)] if notes else []
    return "\n".join(lines).rstrip() + "\n"


# --------------------------------------------------------------------------- the file


def read(text: str) -> list[Section]:
    """The sections of a RESULTS.md, in its order."""
    return [Section(part.partition("\n")[0].strip(), f"## {part}", ratios(part)) for part in parts(text)[1:]]


def parts(text: str) -> list[str]:
    """What is before the first section, and each section without its marks."""
    return re.split(r"^## ", text, flags=re.MULTILINE)


def ratios(part: str) -> frozenset[str]:
    """The cells of a section's columns of ratios."""
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("|")]
    if not table:
        return frozenset()
    asked = [index for index, name in enumerate(table[0]) if name in ("ratio", "in processor time")]
    return frozenset(cells[index] for cells in table[2:] for index in asked if cells[index])


def place(title: str) -> tuple[int, str]:
    """Where a section stands: benchmarks in their order, the processors' before a GPU's."""
    name = title.partition(" on ")[0]
    return (MODULES.index(name) if name in MODULES else len(MODULES), title)


def write(path: Path, title: str, text: str) -> None:
    """Put a section in the place of the one of this title, and leave the others as they are to the letter."""
    from nsd.plugins.durable import write_atomically

    others = read(path.read_text(encoding="utf-8")) if path.is_file() else []
    kept = {one.name: one.text.rstrip() + "\n" for one in others} | {title: text}
    write_atomically(path, "\n".join([HEAD, *(kept[one] for one in sorted(kept, key=place))]))
