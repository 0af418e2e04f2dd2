"""A plan of a small spec over files of its own."""

from __future__ import annotations

from pathlib import Path

from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec

SPEC = """\
name: toy
model: {path: MODEL, dtype: float32}
data: {use: jsonl, train: TRAIN, test: TEST, fields: {question: q, answer: a, solution: s},
  split: {labeled: 6, unlabeled: 6, test: 4}}
prompt: {template: "Q: {question} A:", chat: false}
engine: {use: hf, batch_size: 4}
labeler: {use: consensus, k: 4, temperature: 0.7, max_tokens: 16, threshold: 0.0}
trainer: {use: sft, epochs: 2, batch_size: 2, learning_rate: 5e-4}
eval: {use: accuracy, temperature: 0.1, max_tokens: 16}
seeds: [1]
conditions:
  base: {train_on: []}
  baseline: {train_on: [labeled]}
  student: {train_on: [labeled, pseudo], label_with: baseline}
  filtered: {train_on: [labeled, pseudo], label_with: baseline, labeler: {threshold: 0.75}}
  oracle: {train_on: [labeled, unlabeled]}
resources: {max_hours: 1}
"""


def plan_of(place: Path, text: str = SPEC, **options: object) -> Plan:
    for name in ("train", "test"):
        text = text.replace(name.upper(), str(place / f"{name}.jsonl"))
    path = place / "toy.yaml"
    path.write_text(text.replace("MODEL", str(place / "model")))
    return build_plan(load_spec(path), **options)  # type: ignore[arg-type]
