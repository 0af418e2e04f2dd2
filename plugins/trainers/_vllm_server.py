"""A vLLM server that draws a training's rollouts: `rollout: vllm://host:port`.

    VLLM_SERVER_DEV_MODE=1 PYTHONPATH=FOLDER vllm serve MODEL --generation-config vllm \
        --worker-extension-cls nsd_vllm.Weights      # FOLDER: nsd/plugins/engines/vllm_side

The server reads the weights from a folder of this machine, as its developer interface (`/collective_rpc`) is told to,
and what it then holds must have the print of the files. So it runs on the machine of the training, on other GPUs, or
where that folder (TMPDIR) is shared. It serves one training at a time.
Limits: each of its processes holds the whole model (no tensor parallelism).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nsd.plugins.engines.vllm_process import SIDE, VllmDrawn, VllmRow, VllmSampling
from nsd.plugins.engines.vllm_versions import OF_NSD, check
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.trainers._rollouts import Asked
from nsd.plugins.trainers._setup import first_process, wait_for_all

if TYPE_CHECKING:
    import httpx2

AT_ONCE = 64  # requests in flight
SECONDS = 1800.0  # for one answer: a reload of large weights, a rollout behind many others
COMMAND = (
    f"VLLM_SERVER_DEV_MODE=1 PYTHONPATH={SIDE} vllm serve MODEL --generation-config vllm "
    "--worker-extension-cls nsd_vllm.Weights"
)


@cache
def side() -> ModuleType:
    """The file that vLLM's own Python runs, for the prints of weights."""
    spec = importlib.util.spec_from_file_location("nsd_vllm", SIDE / "nsd_vllm.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def address_of(rollout: str) -> str:
    """The HTTP address of a `vllm://host:port`."""
    return f"http://{rollout.removeprefix('vllm://')}"


def reached(rollout: str) -> str:
    """The version of the vLLM that serves there. Raises InputError where nobody answers, or one of no use."""
    import httpx2

    address = address_of(rollout)
    try:
        with httpx2.Client(base_url=address, timeout=10.0, trust_env=False) as client:
            found = client.get("/version")
            version = str(found.json()["version"])
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"trainer.rollout: no vLLM answers at {address} ({type(error).__name__}); it is started by {COMMAND}"
        ) from error
    check(version, OF_NSD, f"trainer.rollout: {rollout}")
    return version


class Served:
    """Draws from a server. Every process of a training asks it; the first one hands the weights over."""

    def __init__(self, rollout: str, context: int) -> None:
        import httpx2

        self.version = reached(rollout)
        self.weights: list[float] | None = None
        self.processes = 0
        self._name, self._context = rollout, context
        limits = httpx2.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        self._client = httpx2.Client(base_url=address_of(rollout), timeout=SECONDS, limits=limits, trust_env=False)
        self._model = str(self._asked("GET", "/v1/models")["data"][0]["id"])
        config = self._asked("GET", "/server_info?config_format=json")["vllm_config"]["model_config"]
        self._dtype = str(config["dtype"]).removeprefix("torch.")
        if int(config["max_model_len"]) < context:
            raise InputError(
                f"trainer.rollout: {rollout} reads {config['max_model_len']} tokens, and prompt and completion take "
                f"{context}: start it with --max-model-len {context}"
            )

    def take(self, folder: Path, step: int) -> None:
        """Have the server read the weights, and compare what every process of it then holds."""
        if first_process():
            self._take(folder, step)
        wait_for_all()

    def _take(self, folder: Path, step: int) -> None:
        import torch

        there = side().print_of(folder, getattr(torch, self._dtype))
        assert there is not None  # `write_weights` writes safetensors
        self._each("blank")
        if any(self._is(held, there) for held in self._held()):
            raise StageFailed(f"trainer.rollout: {self._name} did not throw its weights away before step {step + 1}")
        self._each("reload_weights", weights_path=str(folder))
        self._each("renew")
        self._asked("POST", "/reset_prefix_cache")
        found = self._held()
        self.weights = found[0] if found else None
        if not found or not all(self._is(held, there) for held in found):
            raise StageFailed(
                f"trainer.rollout: {self._name} does not hold the weights that it was given before step {step + 1}: "
                "rollouts would be those of another model. Start it again; with tensor parallelism it cannot be proven"
            )

    @staticmethod
    def _is(held: list[float], there: list[float]) -> bool:
        apart, rounding = side().apart, side().ROUNDING
        return bool(apart(held, there) <= rounding)

    def _held(self) -> list[list[float]]:
        return [list(map(float, one)) for one in self._each("weights_here")]

    def draw(self, asked: Sequence[Asked], rows: Sequence[VllmRow], sampling: VllmSampling) -> list[VllmDrawn]:
        """Draw all rows, one request each: one request for several would give them seeds in a row."""
        prompts = {one.question_id: one.ids for one in asked}
        common = {
            "model": self._model,
            "n": 1,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": sampling.stop_token_ids,
            "ignore_eos": True,
            "return_token_ids": True,
        }

        def one(row: VllmRow) -> VllmDrawn:
            own = {"prompt": prompts[row.question_id], "seed": row.seed % 2**63, "max_tokens": row.limit}
            choice = self._asked("POST", "/v1/completions", common | own)["choices"][0]
            return VllmDrawn(row.question_id, row.sample, choice["token_ids"], choice["finish_reason"], [], [])

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return self._read(lambda: pool.map(one, rows))

    def _read(self, rows: Callable[[], Iterator[VllmDrawn]]) -> list[VllmDrawn]:
        try:
            return list(rows())
        except (KeyError, IndexError, TypeError) as error:
            raise StageFailed(f"trainer.rollout: {self._name} answers otherwise than vLLM: {error!r}") from error

    def rest(self) -> bool:
        """It has GPUs of its own."""
        return False

    def end(self) -> None:
        """Close the connections; the server goes on."""
        self._client.close()

    # ------------------------------------------------------------------ requests

    def _each(self, method: str, **given: str) -> list[Any]:
        """What each process of the server answers to a method."""
        found = self._asked("POST", "/collective_rpc", {"method": method, "kwargs": given})
        return list(found.get("results", []))

    def _asked(self, way: str, path: str, body: dict[str, Any] | None = None) -> Any:
        import httpx2

        try:
            response = self._client.request(way, path, json=body)
        except httpx2.HTTPError as error:
            raise StageFailed(
                f"trainer.rollout: {self._name} does not answer ({_said(error)}); with the server there again, the "
                "same command continues from the last checkpoint"
            ) from error
        if response.status_code == 404:
            raise InputError(f"trainer.rollout: {self._name} has no {path}; it is started by {COMMAND}")
        if response.status_code != 200:
            raise StageFailed(
                f"trainer.rollout: {self._name} answers {path} with {response.status_code}: "
                f"{' '.join(response.text.split())[:400]}; it is started by {COMMAND}, and reads the folder that the "
                "training writes"
            )
        return response.json() if response.content else {}


def _said(error: httpx2.HTTPError) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()
