"""A warm process in a copy: third-party modules are imported once, and each fault runs in a fork of it.

No module of nsd and no test module is imported before the fork, so the fork imports the mutated file. Requests and
answers are lines of JSON on standard input and output.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

WARM = """
    pytest hypothesis numpy scipy.stats scipy.optimize pandas pyarrow.parquet duckdb pydantic typer rich.table yaml
    jinja2 matplotlib.pyplot jsonschema statsmodels.stats.multitest sympy math_verify torch safetensors.torch datasets
    peft transformers transformers.models.qwen3.modeling_qwen3 transformers.generation.utils transformers.trainer
    trl.trainer.sft_trainer trl.trainer.grpo_trainer
"""
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: what a fault's tests leave running becomes our child, so that we can end it


class Watch:
    """Notes what fails, with the end of its message."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.run = 0

    def note(self, report: Any) -> None:
        if report.failed:
            self.failures.setdefault(report.nodeid, str(report.longrepr)[-600:])

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.run += report.when == "call"
        self.note(report)

    def pytest_collectreport(self, report: Any) -> None:
        self.note(report)


def main() -> None:
    os.nice(10)
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    signal.signal(signal.SIGTERM, give_up)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open("../server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.path[:] = [path for path in sys.path if Path(path or ".").name != "mutants"]
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", MPLBACKEND="agg")
    for name in WARM.split():
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"not warm: {name}: {error}", flush=True)
    for plugin in entry_points(group="pytest11"):
        plugin.load()
    warm = [name for name in sys.modules if name.split(".")[0] == "nsd"]
    assert not warm, f"imported before the fork: {warm}"
    gc.freeze()  # pytest and Hypothesis collect often; without this, each time through all that was imported
    answers.write('{"ready": true}\n')
    for line in sys.stdin:
        answers.write(json.dumps(serve(json.loads(line))) + "\n")


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Run the tests of one fault in a fork; `outcome` is noticed, timeout or survived."""
    result, began = Path("../result.json"), time.monotonic()
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        run(request, result)
    code, late = wait(child, began + request["limit"])
    end_descendants()
    for leftover in (Path(".hypothesis/examples"), Path("../tmp")):
        shutil.rmtree(leftover, ignore_errors=True)
    found = json.loads(result.read_text()) if result.exists() else {"failures": {}, "run": 0}
    by, why = next(iter(found["failures"].items()), ("", ""))
    timeout = late or "Failed: Timeout" in why
    outcome = "timeout" if timeout else "survived" if code == 0 else "noticed"
    seconds = round(time.monotonic() - began, 2)
    return {**found, "outcome": outcome, "code": code, "by": by, "why": why, "seconds": seconds}


def give_up(*_: object) -> None:
    end_descendants()
    os._exit(1)


def run(request: dict[str, Any], result: Path) -> None:
    import pytest

    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.path.insert(0, str(Path.cwd()))  # as `python -m pytest` does
    watch, code = Watch(), 70
    arguments = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--hypothesis-seed=0",
        "--basetemp=../tmp",
        f"--timeout={request['each']}",
    ]
    try:
        code = int(pytest.main([*arguments, *request["options"], *request["tests"]], plugins=[watch]))
    finally:
        result.write_text(json.dumps({"failures": watch.failures, "run": watch.run}))
        os._exit(code)


def wait(child: int, deadline: float) -> tuple[int, bool]:
    parent = os.getppid()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), False
        if os.getppid() != parent:
            give_up()
        if time.monotonic() > deadline:
            end_descendants()
            return -9, True
        time.sleep(0.02)


def end_descendants() -> None:
    """Kill every process below this one, however often a killed one leaves others to us."""
    for _ in range(200):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not children:
            return
        for name in children:
            with contextlib.suppress(OSError):
                os.kill(int(name), signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


if __name__ == "__main__":
    main()
