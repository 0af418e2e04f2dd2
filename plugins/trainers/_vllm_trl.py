"""GRPO's rollouts by TRL's vLLM: what TRL is told, and whether the weights that it handed over are those that answer.

    args = arguments(GRPOConfig, ..., **fields(config))
    complete(args, config, job, model, tokenizer)      # once the model is there
    watch(trainer, job)                                # once the trainer is

`rollout: vllm` is a vLLM in the process of the training, `vllm://host:port` a server, to which TRL sends the weights by
NCCL. It is started so (COMMAND), with vLLM of TRL's range in nsd's own Python too.
TRL seeds vLLM by the number of the process and not by the training's seed: such a training does not continue to the
letter. Untested on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nsd.plugins.api import TrainJob
from nsd.plugins.engines.vllm_process import SIDE
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.trainers._handover import named_weights
from nsd.plugins.trainers._rollout_config import NOT_EXACT

COMMAND = (
    f"VLLM_SERVER_DEV_MODE=1 PYTHONPATH={SIDE} vllm serve MODEL --generation-config vllm "
    """--weight-transfer-config '{"backend": "nccl"}' --logprobs-mode processed_logprobs """
    "--worker-extension-cls nsd_vllm.Weights"
)


def fields(config: Any) -> dict[str, Any]:
    """The fields of TRL's config that `rollout` sets; none where vLLM does not draw."""
    if config.rollout == "vllm":
        return {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": config.rollout_memory}
    if config.rollout.startswith("vllm://"):
        from nsd.plugins.trainers._vllm_server import address_of

        return {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": address_of(config.rollout)}
    return {}


def complete(args: Any, config: Any, job: TrainJob, model: Any, tokenizer: Any) -> None:
    """Set what depends on the model, the prompts and the card, where `trainer.trl` does not say it."""
    from nsd.plugins.trainers._vllm_rollouts import Place, context_of

    if not args.use_vllm:
        return
    listed = model.generation_config.eos_token_id  # with the end of the template's turns, which no file says
    ends = listed if isinstance(listed, list) else [listed]
    args.generation_kwargs = {"stop_token_ids": ends, **(args.generation_kwargs or {})}
    if args.vllm_mode != "colocate":
        return
    if "vllm_max_model_length" not in config.trl:
        most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        args.vllm_max_model_length = context_of(job, tokenizer, config.max_tokens, most)
    if "vllm_enable_sleep_mode" not in config.trl:
        args.vllm_enable_sleep_mode = Place.of(args.device).small


class Watch:
    """Compares the print of the weights that vLLM holds with that of the model that learns, after each hand-over."""

    def __init__(self, trainer: Any, job: TrainJob) -> None:
        self._trainer, self._job = trainer, job
        self._noise: float | None = None
        self.handovers, self.checked = 0, 0
        self.version = "?"

    def look(self) -> None:
        """Raise StageFailed where other weights answer than those that were handed over."""
        from nsd.plugins.trainers._vllm_server import side

        self.handovers += 1
        held = self._held()
        if held is None:
            return
        there = [0.0, 0.0, 0.0]
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        for value in named_weights(model).values():
            side().add_print(there, value.to(held[1]))
        apart = side().apart(held[0], there)
        if self._noise is None:
            if apart > side().ROUNDING:
                self._not_checked("it holds them in a form that cannot be compared")
                return
            self._noise = apart
        if apart > 10 * max(self._noise, 1e-12):
            raise StageFailed(
                f"trainer.rollout: vLLM does not answer by the weights that it was handed before step "
                f"{int(self._trainer.state.global_step) + 1}: rollouts would be those of another model"
            )
        self.checked += 1

    def _held(self) -> tuple[list[float], Any] | None:
        """The print of what vLLM holds, and its type of numbers; None where nobody can look."""
        import torch

        from nsd.plugins.trainers._vllm_server import side

        generation = self._trainer.vllm_generation
        if self._trainer.args.fsdp or self._trainer.args.vllm_tensor_parallel_size > 1:
            self._not_checked("the weights are spread")
            return None
        if generation.mode == "colocate":
            engine = generation.llm.llm_engine
            worker = engine.model_executor.driver_worker
            return list(side().Weights.weights_here(worker)), engine.model_config.dtype
        if not self._trainer.accelerator.is_main_process:
            return None
        client = generation.vllm_client
        response = client.session.post(f"{client.base_url}/collective_rpc", json={"method": "weights_here"})
        found = response.json().get("results", []) if response.status_code == 200 else []
        if len(found) != 1:
            self._not_checked(f"the server is to be started by {COMMAND}, without tensor parallelism")
            return None
        dtype = client.get_server_info()["model_config"]["dtype"]
        return list(map(float, found[0])), getattr(torch, str(dtype).removeprefix("torch."))

    def _not_checked(self, why: str) -> None:
        if self.handovers == 1:
            self._job.warn(f"nobody checks which weights vLLM answers by: {why}", "trainer.rollout")

    def notes(self) -> dict[str, Any]:
        """As those of nsd's own drawers (_vllm_rollouts.py), and how many hand-overs were checked."""
        where = "beside" if self._trainer.args.vllm_mode == "colocate" else "server"
        told = {"vllm": _version(), "where": where, "handovers": self.handovers, "checked": self.checked}
        return {"rollouts_by": told | {"resume_exact": False}}


def watch(trainer: Any, job: TrainJob) -> Watch | None:
    """Have every hand-over of a trainer checked; None where vLLM does not draw."""
    if not trainer.args.use_vllm:
        return None
    job.warn(NOT_EXACT, "trainer.rollout")
    found = Watch(trainer, job)
    handing_over: Callable[[], None] = trainer.vllm_generation.sync_weights

    def sync_weights() -> None:
        handing_over()
        found.look()

    trainer.vllm_generation.sync_weights = sync_weights
    return found


def _version() -> str:
    import sys
    from pathlib import Path

    from nsd.plugins.engines.vllm_versions import version_in

    return version_in(Path(sys.executable)) or "?"


def check(rollout: str, device: str) -> None:
    """Raise InputError where TRL's vLLM cannot draw here: no GPU, no vLLM in this Python, or one of another range."""
    import sys
    from pathlib import Path

    from nsd.plugins.engines import vllm_versions
    from nsd.plugins.extras import pip_install

    what = f"trainer.rollout: {rollout}"
    if device != "cuda":
        raise InputError(f"{what}: TRL hands weights to vLLM on GPUs alone; rollout: hf draws on a processor")
    version, wanted = vllm_versions.version_in(Path(sys.executable)), vllm_versions.OF_TRL
    if version is None:
        raise InputError(
            f"{what}: TRL's vLLM runs in this Python, and none is here: {pip_install(wanted.requirement)}; the other "
            "trainers on rollouts, such as rloo, take one from an environment of its own"
        )
    vllm_versions.check(version, wanted, what)
