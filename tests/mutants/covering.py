"""Which tests execute which line: the fast suite under coverage, once for each state of the sources.

Coverage's contexts are the tests. Three things would be missed by them alone. A line that a child process executes
(nsd's commands and workers): children start coverage too, with the context of the test that started them. A line
executed while a shared fixture is set up belongs to every test that uses the fixture, not to the first. A line that an
import executes belongs to every test that executes anything in its file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .copies import ROOT, Copy, environment, tracked

if TYPE_CHECKING:
    from .faults import Fault  # not at run time: pytest in the copy loads this file, and needs no mutmut

FAST = "not slow and not browser and not cluster"
CONTEXT, NOTES = "MUTANTS_CONTEXT", "MUTANTS_NOTES"
IMPORTED = ""
PACKAGES = ("runner", "plugins", "reports")
# They look at what an import has made, and execute no line: every constant and field is tried by them too.
RECORDS = ("tests/test_constants.py", "tests/runner/plan/test_defaults.py")
# A script that runs where coverage cannot follow it, and the line that sends it there: what tests send it, run it.
SENT = {"plugins/verifiers/_code_harness.py": ("plugins/verifiers/code_tests.py", "{_harness()}")}


@dataclass
class Covering:
    """Seconds of each test and shared fixture, the fixtures that each test uses, contexts by file and line.

    `failed` are tests that failed under coverage, which need not be the fault of the code.
    """

    seconds: dict[str, float]
    uses: dict[str, list[str]]
    lines: dict[str, dict[str, list[str]]]
    key: str = ""
    failed: list[str] = field(default_factory=list)

    def tests_of(self, fault: Fault) -> list[str]:
        """Tests that execute the fault's line, in the order in which they run.

        Whoever imports a file first executes its constants and fields. They belong to all who execute anything in it,
        and to the other tests in the files of those, which may look at nothing but a default. Of a script that is sent
        elsewhere, every line belongs to the tests that send it.
        """
        lines = self.lines.get(fault.file, {})
        at = lines if fault.imported else map(str, range(fault.first, fault.last + 1))
        if fault.file in SENT:
            file, sends = SENT[fault.file]
            lines, text = self.lines.get(file, {}), (ROOT / file).read_text(encoding="utf-8")
            at = [str(number) for number, line in enumerate(text.splitlines(), 1) if sends in line]
        contexts = {each for line in at for each in lines.get(line, [])} - {IMPORTED}
        found = [test for test, used in self.uses.items() if test in contexts or contexts & set(used)]
        if fault.imported:
            files = {*RECORDS, *(test.split("::")[0] for test in found)}
            found = [test for test in self.uses if test.split("::")[0] in files]
        return self.ordered(found)

    def ordered(self, tests: list[str]) -> list[str]:
        """Quickest first: files by the time of their quick tests, then the slow tests each by itself.

        The tests of a file stay together, because a shared fixture is set up again each time its file is left.
        """
        files: dict[str, list[str]] = {}
        for test in tests:
            if self.cost([test]) < 1:
                files.setdefault(test.split("::")[0], []).append(test)
        quick = [test for file in sorted(files, key=lambda file: self.cost(files[file])) for test in files[file]]
        return quick + sorted(set(tests) - set(quick), key=lambda test: (self.cost([test]), test))

    def cost(self, tests: list[str]) -> float:
        """Seconds that the tests take, each shared fixture once."""
        fixtures = {fixture for test in tests for fixture in self.uses[test]}
        return sum(self.seconds.get(name, 0.0) for name in (*tests, *fixtures))


def sources_key() -> str:
    """Hash of the files that the map depends on: the product, its tests and its specs."""
    digest = hashlib.sha256()
    for path in tracked():
        if (
            (ROOT / path).is_file()
            and path.parts[0] in (*PACKAGES, "nsd", "tests", "specs")
            and path.parts[:2] != ("tests", "mutants")
        ):
            digest.update(f"{path}\0".encode() + hashlib.sha256((ROOT / path).read_bytes()).digest())
    return digest.hexdigest()[:16]


def covering(cache: Path, copy: Copy, say: Any) -> Covering:
    """The map of the present sources, made where it is not there."""
    key = sources_key()
    path = cache / f"covering-{key}.json"
    if not path.exists():
        say("which test covers which line: the fast suite under coverage, some minutes")
        began = time.monotonic()
        made = _measure(copy, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(asdict(made)), encoding="utf-8")
        path.with_suffix(".part").replace(path)
        say(f"{len(made.uses)} tests in {time.monotonic() - began:.0f} s, {len(made.failed)} failed under coverage")
    return Covering(**json.loads(path.read_text(encoding="utf-8")))


def _measure(copy: Copy, key: str) -> Covering:
    import coverage

    folder = copy.root.parent / "coverage"
    folder.mkdir()
    settings, notes = folder / "settings.ini", folder / "notes.json"
    sources = "\n".join(f"    {copy.root / package}" for package in PACKAGES)
    settings.write_text(
        f"[run]\nparallel = true\nsigterm = true\ndata_file = {folder / 'data'}\ncontext = ${{{CONTEXT}-}}\n"
        f"source =\n{sources}\n",
        encoding="utf-8",
    )
    command = [str(copy.python), "-m", "pytest", "-m", FAST, "-p", "no:cacheprovider", "-p", "tests.mutants.covering"]
    log = (folder / "log").open("w")
    subprocess.run(
        [*command, "--hypothesis-seed=0", f"--basetemp={folder / 'tmp'}"],
        cwd=copy.root,
        env={**environment(), "COVERAGE_PROCESS_START": str(settings), CONTEXT: IMPORTED, NOTES: str(notes)},
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if not notes.exists():
        raise RuntimeError(f"pytest ended without its notes:\n{(folder / 'log').read_text()[-3000:]}")
    data = coverage.CoverageData(basename=str(folder / "combined"))
    for part in folder.glob("data.*"):
        one = coverage.CoverageData(basename=str(part))
        try:
            one.read()
            data.update(one)
        except coverage.exceptions.DataError:
            continue  # a process that was killed while it wrote
    lines = {
        str(Path(file).relative_to(copy.root)): {
            str(line): sorted(contexts) for line, contexts in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    return Covering(lines=lines, key=key, **json.loads(notes.read_text(encoding="utf-8")))


class Contexts:
    """The pytest side: tells coverage which test, or which shared fixture, is running."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.seconds: dict[str, float] = {}
        self.uses: dict[str, list[str]] = {}
        self.ran: set[str] = set()
        self.failed: list[str] = []
        self.current = IMPORTED
        self.in_fixtures = 0.0
        self.of_fixtures: set[int] = set()

    def switch(self, context: str) -> str:
        import coverage

        before, self.current = self.current, context
        os.environ[CONTEXT] = context
        running = coverage.Coverage.current()
        assert running is not None
        running.switch_context(context)
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        definitions = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009
        self.uses[item.nodeid] = sorted({_name(one) for each in definitions for one in each if one.scope != "function"})
        before, self.in_fixtures, began = self.switch(item.nodeid), 0.0, time.monotonic()
        kept, self.of_fixtures = _children(), set()
        try:
            return (yield)
        finally:
            self.switch(before)
            self.seconds[item.nodeid] = time.monotonic() - began - self.in_fixtures
            # A helper that later tests would use too, under this test's name: it says what it executed, and ends.
            _end(_children() - kept - self.of_fixtures)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        before, began, kept = self.switch(_name(fixturedef)), time.monotonic(), _children()
        try:
            return (yield)
        finally:
            self.switch(before)
            self.of_fixtures |= _children() - kept
            took = time.monotonic() - began
            self.in_fixtures += took
            self.seconds[_name(fixturedef)] = max(took, self.seconds.get(_name(fixturedef), 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when == "call" and not report.skipped:
            self.ran.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        uses = {test: used for test, used in self.uses.items() if test in self.ran}
        failed = sorted(set(self.failed) & self.ran)
        notes = {"seconds": self.seconds, "uses": uses, "failed": failed}
        self.notes.write_text(json.dumps(notes), encoding="utf-8")


def _children() -> set[int]:
    listed = Path("/proc/self/task").glob("*/children")
    return {int(child) for path in listed for child in path.read_text().split()}


def _end(processes: set[int], seconds: float = 10.0) -> None:
    """End children and wait until they have, without taking their exit status from whoever started them."""
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(_runs, processes)):
        time.sleep(0.01)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _name(fixturedef: Any) -> str:
    return f"fixture {fixturedef.baseid}::{fixturedef.argname}"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Contexts(Path(os.environ[NOTES])))
