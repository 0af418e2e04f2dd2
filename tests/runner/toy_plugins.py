"""An engine and a trainer that do almost nothing, for tests of what runs them. No torch: a stage takes milliseconds.

What they do follows from the folder named in NSD_TOY: they write their process's id to `pids`, a line to `log`; the
engine stops after a shard until there is a file `gate`, where there is one named `gated`; the trainer fails where
`fail` names its seed of order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from nsd.plugins.api import (
    Completion,
    Engine,
    ModelRef,
    PluginConfig,
    Request,
    Sampling,
    StopReason,
    Trainer,
    TrainJob,
    TrainResult,
)
from nsd.plugins.errors import StageFailed
from nsd.plugins.registry import plugin


def place() -> Path:
    return Path(os.environ["NSD_TOY"])


def tell(line: str) -> None:
    with (place() / "log").open("a") as log:
        log.write(f"{line}\n")
    with (place() / "pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")


@plugin("engine", "toy")
class ToyEngine(Engine):
    """Says 7, two completions a shard."""

    class Config(PluginConfig):
        word: str = "answer"

    def generate(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        done: AbstractSet[tuple[str, int]] = frozenset(),
    ) -> Iterator[list[Completion]]:
        tell(f"generate {self.config.word}")
        wanted = [(one.question_id, sample) for one in requests for sample in range(sampling.n)]
        for start in range(0, len(wanted), 2):
            batch = [pair for pair in wanted[start : start + 2] if pair not in done]
            if batch:
                yield [
                    Completion(one, sample, f"The {self.config.word} is 7", 4, StopReason.STOP) for one, sample in batch
                ]
            while (place() / "gated").exists() and not (place() / "gate").exists():
                time.sleep(0.01)

    def close(self) -> None:
        tell(f"close {self.config.word}")


@plugin("trainer", "toy")
class ToyTrainer(Trainer):
    """Leaves a file of a few bytes for a model."""

    class Config(PluginConfig):
        mark: str = "plain"

    def planned_steps(self, examples: int) -> int | None:
        return 1

    def train(self, job: TrainJob) -> TrainResult:
        tell(f"train {self.config.mark}")
        if (place() / "fail").exists() and self.config.mark in (place() / "fail").read_text():
            raise StageFailed("it was told to fail")
        job.output_dir.mkdir(parents=True)
        (job.output_dir / "model.safetensors").write_text(self.config.mark)
        job.report(1, 1, {"loss": 1.0})
        return TrainResult(steps=1, examples_seen=len(job.examples), tokens_seen=1)
