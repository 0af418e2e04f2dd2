"""Training jobs on the tiny model, for tests in this process and, by `main`, in others that get killed.

`main` runs the job that a file describes and appends its events to a log; it dies by SIGKILL at a moment the job names.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsd.plugins.api import (
    Budget,
    Example,
    LoraConfig,
    ModelRef,
    PluginConfig,
    Prompt,
    Protocol,
    Question,
    Reward,
    Rollout,
    Score,
    TrainJob,
    TrainResult,
    TrainSeeds,
    Validation,
    Verifier,
    question_id,
)
from nsd.plugins.protocols.avg_at_k import AvgAtK
from nsd.plugins.registry import find, plugin
from nsd.runner.work.worker import leave_group


class LastWord(Verifier):
    """The last word of a completion, for rewards that need a verifier and no more."""

    def extract(self, completion: str) -> str | None:
        words = completion.split()
        return words[-1] if words else None


class EvenVowels(LastWord):
    """Has a completion right whose number of ASCII vowels is even: about one in two, whatever the model."""

    def score(self, completion: str, question: Question) -> Score:
        even = sum(c in "aeiou" for c in completion) % 2 == 0
        return Score(float(even), even, self.extract(completion))


@plugin("reward", "test_share_of_vowels")
class ShareOfVowels(Reward):
    """Reward with a spread on any text: the share of ASCII letters that are vowels."""

    class Config(PluginConfig):
        weight: float = 1.0

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        return [
            sum(c in "aeiou" for c in rollout.text) / max(1, len(rollout.text)) - 0.1 * rollout.truncated
            for rollout in rollouts
        ]


def examples(count: int, chat: bool = False) -> list[Example]:
    """Sums with their answers, of different lengths."""
    made = []
    for index in range(count):
        question = Question(id=question_id(f"{index}+{index * 7}"), text=f"{index}+{index * 7}?", answer=str(index * 8))
        prompt = Prompt(template="Add: {question}", chat=chat)
        made.append(
            Example(question, prompt.render(question), question.answer, f"that makes {question.answer}", "labeled")
        )
    return made


def validation(every: int, keep: Any, verifier: Verifier | None = None, protocol: Protocol | None = None) -> Validation:
    """Five sums that no job trains on."""
    return Validation(
        examples=examples(35)[30:],
        every=every,
        keep=keep,
        protocol=protocol or AvgAtK(AvgAtK.Config(k=4, max_tokens=8, temperature=1.0)),
        verifier=verifier or EvenVowels(),
        seed=80,
    )


@dataclass
class Events:
    """What a trainer reported, in memory."""

    reports: list[tuple[int, int | None, dict[str, float]]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    stop_after: int | None = None

    def report(self, step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        self.reports.append((step, total, dict(metrics)))

    def warn(self, text: str, spec_field: str, step: int | None = None) -> None:
        self.warnings.append((text, spec_field))

    def should_stop(self) -> bool:
        return self.stop_after is not None and bool(self.reports) and self.reports[-1][0] + 1 >= self.stop_after

    def curve(self, metric: str) -> list[float]:
        return [metrics[metric] for _, _, metrics in self.reports if metric in metrics]


def job(
    folder: Path, model: Path | ModelRef, events: Events, count: int = 12, chat: bool = False, **changes: Any
) -> TrainJob:
    """A job over `count` sums whose output and checkpoints lie in `folder`."""
    fields: dict[str, Any] = {
        "model": model if isinstance(model, ModelRef) else ModelRef(str(model)),
        "lora": None,
        "examples": examples(count, chat),
        "prompt": Prompt(template="Add: {question}", chat=chat),
        "verifier": LastWord(),
        "seeds": TrainSeeds(init=11, order=12, rollout=13),
        "budget": Budget(),
        "output_dir": folder / "weights",
        "checkpoint_dir": folder / "checkpoints",
        "report": events.report,
        "warn": events.warn,
        "should_stop": events.should_stop,
    }
    return TrainJob(**(fields | changes))


def train(kind: str, config: Mapping[str, Any], job: TrainJob) -> TrainResult:
    """Run a trainer plugin by name."""
    trainer_class: Any = find("trainer", kind)
    result = trainer_class(trainer_class.Config.model_validate(dict(config))).train(job)
    assert isinstance(result, TrainResult)
    return result


def weights_hash(folder: Path) -> str:
    """Hash over all tensors in a folder's safetensors, names and bytes."""
    from safetensors import safe_open

    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    assert files, f"no safetensors in {folder}"
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in sorted(opened.keys()):
                tensor = opened.get_tensor(name)
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
                digest.update(tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


@dataclass
class Death:
    """SIGKILL to this process itself at its n-th report (`at` "report") or n-th change of a file of a checkpoint or of
    the best weights ("file": opened for writing, renamed or removed, before it happens). Weights and optimizer are
    written unseen.
    """

    at: str
    after: int

    def count(self, what: str) -> None:
        if what == self.at:
            self.after -= 1
            if self.after == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, folder: Path) -> None:
        """Count what happens to the files under `folder`."""

        def hook(event: str, given: tuple[Any, ...]) -> None:
            changes = event in ("os.rename", "os.remove", "os.rmdir") or (
                event == "open" and isinstance(given[1], str) and set(given[1]) & set("wax+")
            )
            if changes and ("checkpoint-" in str(given[0]) or "best-" in str(given[0])):
                self.count("file")

        sys.addaudithook(hook)


def main(path: Path) -> None:
    """Run the job described in a JSON file; each process appends what it reports to `log.RANK`."""
    wanted = json.loads(path.read_text())
    folder = Path(wanted["folder"])
    log = folder / f"log.{os.environ.get('RANK', '0')}"
    folder.mkdir(parents=True, exist_ok=True)

    def write(line: Mapping[str, Any]) -> None:
        with log.open("a") as opened:
            opened.write(json.dumps(line) + "\n")

    events = Events(stop_after=wanted.get("stop_after"))
    death = Death(**wanted.get("die", {"at": "never", "after": 1}))
    death.watch(folder / "checkpoints")
    lora, watched = wanted.get("lora"), wanted.get("validation")
    made = job(
        folder,
        Path(wanted["model"]),
        events,
        count=wanted.get("count", 12),
        lora=None if lora is None else LoraConfig(**lora),
        validation=None if watched is None else validation(**watched),
        budget=Budget(**wanted.get("budget", {})),
    )

    def report(step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        events.report(step, total, metrics)
        write({"step": step, "total": total} | dict(metrics))
        death.count("report")

    made.report = report
    made.warn = lambda text, spec_field, step=None: write({"warning": text, "field": spec_field})
    result = train(wanted["kind"], wanted["config"], made)
    write({"result": result.steps, "tokens": result.tokens_seen, "notes": dict(result.notes)})
    leave_group()
