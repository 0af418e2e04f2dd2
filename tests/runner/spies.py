"""Plugins that write down what they are given, one JSON line each, into `seen.jsonl` beside this file.

A test copies this file beside its spec; the executor's worker then runs it as it runs any plugin file. Recorded
completions come from `texts.json`: question text -> the texts of its samples; one that begins with FAILED has failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nsd.plugins.api import (
    Completion,
    Engine,
    ModelRef,
    PluginConfig,
    PseudoLabel,
    Question,
    Request,
    Reward,
    Rollout,
    Sampling,
    Score,
    Scored,
    StopReason,
    Trainer,
    TrainJob,
    TrainResult,
    Verifier,
)
from nsd.plugins.labelers.consensus import Consensus
from nsd.plugins.protocols.avg_at_k import AvgAtK
from nsd.plugins.verifiers.numeric import Numeric

HERE = Path(__file__).parent
HIDDEN = "HIDDEN"


def note(seam: str, **seen: Any) -> None:
    with (HERE / "seen.jsonl").open("a") as file:
        file.write(json.dumps({"seam": seam, **seen}, default=str) + "\n")


class SpyEngine(Engine):
    """Gives what was recorded; its first shard of the first call is followed by a crash."""

    class Config(PluginConfig):
        tone: int

    def generate(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        done: AbstractSet[tuple[str, int]] = frozenset(),
    ) -> Iterator[list[Completion]]:
        note(
            "engine",
            model=None if model is None else asdict(model),
            requests=[asdict(request) for request in requests],
            sampling=asdict(sampling),
            seed=seed,
            done=sorted(done),
            config=self.config.model_dump(),
        )
        texts = json.loads((HERE / "texts.json").read_text())
        for request in requests:
            said = request.prompt if isinstance(request.prompt, str) else request.prompt[-1]["content"]
            recorded = next(found for question, found in texts.items() if question in said)
            shard = []
            for sample in range(sampling.n):
                if (request.question_id, sample) not in done:
                    text = recorded[sample]
                    reason = StopReason.ERROR if text.startswith("FAILED") else StopReason.STOP
                    error = "went wrong" if reason is StopReason.ERROR else None
                    shard.append(Completion(request.question_id, sample, text, len(text), reason, error))
            if shard:
                yield shard
            if not (HERE / "crashed").exists():
                (HERE / "crashed").touch()
                raise RuntimeError("the engine broke down")


class SpyVerifier(Numeric):
    """Reads numbers, also gold ones that are marked as hidden."""

    class Config(PluginConfig):
        mark: str

    def normalise(self, answer: str) -> str | None:
        return super().normalise(answer.replace(HIDDEN, ""))

    def score(self, completion: str, question: Question) -> Score:
        note("verifier", completion=completion, question=asdict(question), config=self.config.model_dump())
        return super().score(completion, question)


class SpyLabeler(Consensus):
    """Votes, and notes over what."""

    def label(
        self,
        questions: Sequence[Question],
        samples: Mapping[str, Sequence[Completion]],
        verifier: Verifier,
        seed: int,
    ) -> list[PseudoLabel]:
        drawn = {key: [asdict(one) for one in found] for key, found in samples.items()}
        about = {"seed": seed, "config": self.config.model_dump(), "verifier": verifier.config.model_dump()}
        note("labeler", questions=[asdict(question) for question in questions], samples=drawn, **about)
        return super().label(questions, samples, verifier, seed)


class SpyProtocol(AvgAtK):
    """Averages, and notes over what."""

    def value(self, scored: Sequence[Scored], verifier: Verifier) -> float:
        note("protocol", scored=[asdict(one) for one in scored], verifier=verifier.config.model_dump())
        return super().value(scored, verifier)


class SpyTrainer(Trainer):
    """Trains nothing and leaves an adapter or a model's folder."""

    needs_targets = True

    class Config(PluginConfig):
        epochs: float = 1.0

    def planned_steps(self, examples: int) -> int:
        return examples * int(self.config.epochs)

    def train(self, job: TrainJob) -> TrainResult:
        job.output_dir.mkdir(parents=True, exist_ok=True)
        if job.lora is not None:
            (job.output_dir / "adapter_config.json").write_text("{}")
        note(
            "trainer",
            run_name=job.run_name,
            model=asdict(job.model),
            lora=None if job.lora is None else job.lora.model_dump(),
            examples=[asdict(example) for example in job.examples],
            prompt=job.prompt.model_dump(),
            verifier=[type(job.verifier).__name__, job.verifier.config.model_dump()],
            seeds=asdict(job.seeds),
            budget=asdict(job.budget),
            output=str(job.output_dir),
            checkpoints=str(job.checkpoint_dir),
            trackers=list(job.trackers),
            cap=job.max_steps_cap,
            stop=job.should_stop(),
            config=self.config.model_dump(),
        )
        job.report(1, 2, {"loss": 0.5})
        job.warn("mind the gap", "trainer.epochs", 1)
        return TrainResult(steps=2, examples_seen=len(job.examples), tokens_seen=3, notes={"said": "so"})


class SpyReward(Reward):
    """The length of the text, and a note of what it was given."""

    class Config(PluginConfig):
        weight: float = 1.0
        scale: float = 1.0

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        note("reward", rollouts=[asdict(one) for one in rollouts], config=self.config.model_dump())
        return [self.config.scale * len(one.text) for one in rollouts]
