"""A run of another tool's file, as reading.py reads it and storing.py keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ImportedRun:
    """One run to keep: `values` (question id, mean in [0, 1]) and `samples` with the columns of a scored
    completion, or `counts` (correct, n) alone. `metadata` says where they come from and what was missing. `pairing`:
    what tells that two runs mean the same question: its `text`, an id beside a `checked` text or a hash of one,
    `hashed:64` by its digits (`texts`: a hash by id), ids and `gold` answers, or the `id` alone.
    """

    run: str
    values: list[tuple[str, float]]
    samples: list[dict[str, Any]]
    counts: tuple[int, int] | None
    metadata: dict[str, Any] = field(default_factory=dict)
    pairing: str = "id"
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """The training seed, None where it was not told."""
        return self.metadata.get("seed")

    @property
    def condition(self) -> str:
        """What the runs of several seeds share."""
        return self.run if self.seed is None else self.run.removesuffix(f"/seed{self.seed}")

    def eval_info(self) -> dict[str, Any]:
        """What the index keeps of an evaluation. Not for counts."""
        most = max((sample["sample"] for sample in self.samples), default=0) + 1
        return {
            "metric": self.metadata.get("metric", "accuracy"),
            "protocol": "imported",
            "data_hash": self.metadata["data_hash"],
            "verifier_hash": self.metadata["verifier_hash"],
            "questions": len(self.values),
            "samples": most,
            "mean": sum(value for _, value in self.values) / len(self.values),
            "pairing": self.pairing,
        }

    def describe(self) -> str:
        """A line for people: the mean, and what was missing."""
        if self.counts is not None:
            right, n = self.counts
            return f"{self.run}: {right} of {n} right ({right / n:.4f}), counts only"
        info = self.eval_info()
        missing, absent = self.metadata["missing_answers"], self.metadata["absent_questions"]
        failed = self.metadata["failed_completions"]
        parts = [f"{self.run}: {info['mean']:.4f} on {info['questions']} questions"]
        if found := self.metadata.get("format"):
            parts.append(f"{self.metadata['field']} of {found}")
        if info["metric"] == "score":
            parts.append("graded")
        if info["samples"] > 1:
            parts.append(f"up to {info['samples']} samples each")
        if left_out := self.metadata.get("left_out"):
            parts.append(f"{left_out} lines left out by --where")
        if missing:
            parts.append(f"{missing} without an answer, counted as wrong")
        if failed:
            parts.append(f"{failed} failed, counted as wrong")
        if not_there := self.metadata.get("missing_samples"):
            parts.append(f"{not_there} samples not there, counted as wrong")
        parts += self.metadata.get("notes") or []
        if ragged := self.metadata.get("ragged"):
            parts.append(ragged)
        if absent:
            parts.append(f"INCOMPLETE: {absent} questions of the file are not in this run")
        return ", ".join(parts)

    def paired(self) -> str:
        """What pairing with other runs rests on, "" where it is the question's own text."""
        if self.counts is not None or self.pairing == "text":
            return ""
        if self.texts:
            return "pairing: by id; runs whose question texts differ are not compared"
        on = "ids and gold answers" if self.pairing == "gold" else "ids alone"
        return f"pairing rests on {on}: no text of a question is known (--text FIELD, or --id FIELD --id-is-text)"
