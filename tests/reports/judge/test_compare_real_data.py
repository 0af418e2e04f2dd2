"""Real recorded answers and the published counts, from import through the store to comparison."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.imports.storing import import_file
from support import shared_data


def imported(folder: Path, file: str, **options: Any) -> Workspace:
    workspace = Workspace(folder / "workspace")
    import_file(workspace, shared_data(file), options)
    return workspace


def zeroeval(folder: Path, answer: str, name: str) -> Workspace:
    fields = {"id_field": "id", "answer": answer, "gold": "gold", "verifier": "numeric"}
    return imported(folder, "samples/zeroeval/gsm_answers.jsonl", name=name, **fields)


def test_two_real_models_score_and_differ_as_known(tmp_path: Path) -> None:
    zeroeval(tmp_path, "answers.Qwen2-7B-Instruct", "qwen")
    workspace = zeroeval(tmp_path, "answers.Meta-Llama-3-8B-Instruct", "llama")
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["qwen", "llama"])
    assert (found.n, found.discordant) == (1319, (164, 144))
    assert (found.mean_a, found.mean_b) == pytest.approx((0.7998, 0.7847), abs=5e-5)
    assert found.p == stats.mcnemar(164, 144).p and found.verdict == "UNRESOLVED"


def test_the_published_counts_have_the_published_p(tmp_path: Path) -> None:
    workspace = imported(tmp_path, "published_noisy_student.csv", counts=True)
    published = {
        ("sft_baseline", "sft_oracle"): 0.06,
        ("sft_noisy_student", "sft_oracle"): 0.05,
        ("base", "sft_baseline"): 0.03,
        ("sft_baseline", "sft_noisy_student"): 0.94,
    }
    with Store(workspace).read() as connection:
        for pair, p in published.items():
            (found,) = compare_runs(connection, pair)
            assert found.p is not None and round(found.p, 2) == p
            assert "unpaired" in found.test
        (last,) = compare_runs(connection, ["pseudo_only", "sft_oracle"])
    assert last.p is not None and last.p < 0.01 and last.verdict == "BETTER"


def test_eight_recorded_samples_give_the_known_mean(tmp_path: Path) -> None:
    workspace = imported(
        tmp_path, "samples/qwen25math_math100x8/math_cot_100.jsonl", name="q", id_field="idx", correct="score"
    )
    with Store(workspace).read() as connection:
        row = connection.execute("SELECT avg(value), count(*) FROM eval_values").fetchone()
    assert row == (pytest.approx(0.910), 100)


@pytest.mark.slow
def test_every_pair_of_44_models_and_the_incomplete_one_reported(tmp_path: Path) -> None:
    workspace = zeroeval(tmp_path, "answers.*", "gsm")
    with Store(workspace).read() as connection:
        found = compare_runs(connection, ["gsm/*"])
    assert len(found) == 946 and {one.family for one in found} == {946}
    short = [one for one in found if "gsm/gemini-1.5-flash-exp-0827" in (one.a, one.b)]
    assert len(short) == 43 and all(one.n == 681 and 638 in one.unmatched for one in short)
    assert all(one.n == 1319 and one.unmatched == (0, 0) for one in found if one not in short)
    assert min(Counter(one.verdict for one in found).values()) > 100
