"""The embedded model behind a real server that fails now and then labels, and a small model trains on its labels."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from nsd.plugins.api import ModelRef, Request, Sampling, Usage
from nsd.plugins.engines.hf import HfEngine
from nsd.runner.cli.show_plan import plan_json
from nsd.runner.cli.show_power import plan_power
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from served import Asked, Body, Cut, Fault, Reset, Served, Status

pytest.importorskip("httpx2")

SPEC = """\
name: by-a-server
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 20, split: {labeled: 6, unlabeled: 5, test: 4}}
labeler: {use: consensus, k: 3, max_tokens: 48}
trainer: {use: sft, epochs: 1, batch_size: 4}
eval: {use: accuracy, max_tokens: 48}
resources: {device: cpu}
conditions:
  teacher:
    train_on: []
    engine: {use: openai, base_url: URL, model: wordmath-1m, concurrency: 4, retries: 12,
      prices: {prompt: 300.0, completion: 600.0}}
  student: {train_on: [labeled, pseudo], label_with: teacher}
"""
FAULTS: list[Fault] = [Status(429, {"Retry-After": "0"}), Status(500), Reset(), Body("{"), Cut()]


@pytest.mark.slow
def test_a_small_model_trains_on_the_labels_of_a_served_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    hf, alone = HfEngine(), threading.Lock()

    def say(prompt: str, seed: int) -> str:
        with alone:
            batches = hf.generate(ModelRef("builtin:wordmath-1m"), [Request("q", prompt)], Sampling(1, 0.7, 48), seed)
            return next(iter(batches))[0].text

    def faults(number: int, asked: Asked) -> Fault | None:
        return FAULTS[number // 4 % len(FAULTS)] if number % 4 == 2 else None

    workspace = Workspace(tmp_path / "w")
    with Served(say) as served:
        served.faults = faults
        (tmp_path / "spec.yaml").write_text(SPEC.replace("URL", served.base_url))
        plan = build_plan(load_spec(tmp_path / "spec.yaml"))
        notes = plan_json(plan, workspace, plan_power(plan, workspace))["notes"]
        assert [note for note in notes if note.startswith("wordmath-1m (engine openai): 19 requests")]
        assert execute(plan, workspace).exit_code == 0
    texts = {
        item.text
        for manifest in workspace.manifests("sample")
        if manifest.served is not None
        for item in tables.read_completions(manifest.folder / "samples.parquet")
    }
    assert len(served.answered) == len({asked.place for asked in served.answered}) == 5 * 3 + 4
    assert texts == {say(asked.prompt, asked.body["seed"]) for asked in served.answered}
    told = [manifest.served.usage for manifest in workspace.manifests("sample") if manifest.served is not None]
    usage = sum(told, Usage())
    assert usage.usd is not None
    dollars = (served.billed.prompt * 300 + served.billed.completion * 600) / 1e6
    assert dollars > 0.1
    assert round(usage.usd, 2) == round(dollars, 2)
    assert usage.retries == len(served.asked) - 19
    assert Counter(manifest.kind for manifest in workspace.manifests()) == Counter(
        {"sample": 3, "label": 1, "train": 1, "score": 2}
    )
