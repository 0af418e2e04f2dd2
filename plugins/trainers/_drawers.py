"""What draws the rollouts of a training, as its field `rollout` says."""

from __future__ import annotations

from typing import Any

from nsd.plugins.api import TrainJob
from nsd.plugins.trainers._rollouts import Drawer, sampling_of


def drawer_of(config: Any, job: TrainJob, model: Any, tokenizer: Any, draws: int, device: Any) -> Drawer:
    """What draws the rollouts of a training on `device`, as `config.rollout` says."""
    sampling, seed = sampling_of(config, draws), job.seeds.rollout
    if config.rollout == "hf":
        return Drawer(model, tokenizer, job.prompt, sampling, seed)
    from nsd.plugins.trainers._vllm_rollouts import VllmDrawer

    return VllmDrawer(model, tokenizer, job, sampling, seed, config, device)
