"""`nsd power` and the power lines of `nsd plan`, through the real command line on the shipped quickstart."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.command_line import asked, asked_json, start
from nsd.plugins.api import question_id
from nsd.runner.cli.show_power import plan_power, power_lines
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from support import PATIENCE, REPOSITORY

SPEC = str(REPOSITORY / "specs" / "quickstart.yaml")
N = 1000


def add_results(folder: Path, right: Mapping[str, int], data_hash: str) -> Path:
    """A workspace in which conditions of quickstart have the first so many of 1,000 questions right."""
    workspace = Workspace(folder / "earlier")
    with Store(workspace).write() as connection:
        for condition, count in right.items():
            run, digest = f"quickstart/{condition}/seed42", f"eval-{condition}"
            connection.execute(
                "INSERT INTO runs(run, experiment, condition, seed, spec_digest, eval_digest, train_digest, status) "
                "VALUES (?, 'quickstart', ?, 42, 'spec', ?, ?, 'done')",
                [run, condition, digest, f"train-{condition}"],
            )
            connection.execute(
                "INSERT INTO eval_info VALUES (?, 'accuracy', 'accuracy', ?, 'v', ?, 1)", [digest, data_hash, N]
            )
            connection.execute(
                "INSERT INTO eval_values SELECT ?, 'q' || i, (i < ?)::DOUBLE FROM range(?) t(i)", [digest, count, N]
            )
    return workspace.root


def refused(folder: Path, *arguments: str) -> str:
    process = start(folder, *arguments)
    err: str = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2, err
    return err


def test_a_plan_without_results_uses_the_stated_assumption(tmp_path: Path) -> None:
    found = asked_json(tmp_path, "plan", SPEC, "--json")["power"]
    assert found["family"] == 3 and found["correction"] == "holm"
    assert found["overall"]["alone"]["detectable"] == pytest.approx(0.0396, abs=5e-5)  # 2.80 sqrt(.2 / 1000)
    assert found["overall"]["design"]["questions"] == N
    assert all(claim["spread"]["source"].startswith("assumed") for claim in found["claims"])
    assert not (tmp_path / "nsd-workspace").exists()


def test_the_plan_says_in_at_most_three_lines_what_it_can_detect(tmp_path: Path) -> None:
    lines = asked(tmp_path, "plan", SPEC).splitlines()
    below = lines[next(i for i, line in enumerate(lines) if line.endswith("to run") and "stages:" in line) + 1 :]
    assert len(below) == 3
    assert below[0].startswith("can detect 4.0 points (4.6 points at the hardest level of 3 claims)")
    assert below[1] == "each claim, at its hardest: the same 4.6 points"
    assert "never of the recipe" in below[2] and "14 or more seeds per arm" in below[2]


@pytest.mark.slow
def test_the_plan_learns_from_earlier_runs(tmp_path: Path) -> None:
    data_hash = asked_json(tmp_path, "plan", SPEC, "--json")["power"]["overall"]["design"]["data_hash"]
    workspace = add_results(tmp_path, {"baseline": 300, "filtered": 400, "base": 200}, data_hash)
    claims = asked_json(tmp_path, "plan", SPEC, "--json", "-w", str(workspace))["power"]["claims"]
    by_name = {claim["claim"]: claim for claim in claims}
    assert by_name["filtered > baseline"]["spread"]["variance"] == pytest.approx(0.1)
    assert "earlier runs of baseline and filtered" in by_name["filtered > baseline"]["spread"]["source"]
    # noisy_student has no run: the middle of .1, .1 and .2 stands in
    assert "earlier runs of quickstart" in by_name["noisy_student > baseline"]["spread"]["source"]


@pytest.mark.slow
def test_planning_loads_no_torch(tmp_path: Path) -> None:
    import subprocess

    script = (
        "import sys; from pathlib import Path; from nsd.runner.store.workspace import Workspace;"
        "from nsd.runner.plan.build import build_plan;"
        "from nsd.runner.cli.show_power import plan_power; from nsd.runner.spec.load import load_spec;"
        f"plan_power(build_plan(load_spec({SPEC!r})), Workspace(Path('none')));"
        "print([name for name in ('torch', 'transformers', 'scipy.stats', 'statsmodels') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_shows_each_claim_with_what_a_wanted_difference_takes(tmp_path: Path) -> None:
    out = asked(tmp_path, "power", SPEC, "--detect", "0.04")
    row = next(line for line in out.splitlines() if line.strip().startswith("filtered > baseline"))
    # 7.8489 * .2 / .0016 = 981.1; at alpha / 3 (3.2356)^2 * .2 / .0016 = 1308.6; less by d - difference^2
    assert "979 / 1306" in row and "4.0 points / 4.6 points" in row
    assert "assumed, for want of earlier runs: discordance 20%" in out


def test_an_experiment_that_ran_needs_no_spec(tmp_path: Path) -> None:
    workspace = add_results(tmp_path, {"baseline": 300, "filtered": 400}, "hash")
    found = asked_json(tmp_path, "power", "quickstart", "--json", "-w", str(workspace))
    assert found["claims"] == [] and found["overall"]["design"]["questions"] == N
    assert found["overall"]["spread"]["variance"] == pytest.approx(0.1)
    assert "did you mean 'quickstart'" in refused(tmp_path, "power", "quickstrat", "-w", str(workspace))


def changed(folder: Path, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = asked_json(folder, "power", SPEC, "--json", *options)["claims"][0]
    return found


@pytest.mark.slow
def test_questions_seeds_and_assumptions_can_be_tried_out(tmp_path: Path) -> None:
    assert changed(tmp_path, "--questions", "4000")["design"]["questions"] == 4000
    recipe = changed(tmp_path, "--seeds", "3", "--seed-sd", "0.01")
    assert recipe["about"] == "recipe" and recipe["smallest_p"] == pytest.approx(0.1)
    assert recipe["spread"]["seed_source"].startswith("stated")
    assert changed(tmp_path, "--discordance", "0.1")["spread"]["variance"] == 0.1


def test_a_number_of_questions_alone_is_enough(tmp_path: Path) -> None:
    out = asked(tmp_path, "power", "--questions", "1319")
    assert "3.4 points" in out and "any two conditions" in out


def test_one_question_gets_a_sensible_answer(tmp_path: Path) -> None:
    out = asked(tmp_path, "power", "--questions", "1")
    assert "no difference" in out and "nan" not in out


@pytest.mark.slow
def test_without_anything_to_plan_the_way_out_is_named(tmp_path: Path) -> None:
    assert "--questions" in refused(tmp_path, "power")
    assert "no results" in refused(tmp_path, "power", "quickstart")
    assert "discordance 0.0" in refused(tmp_path, "power", "--questions", "9", "--discordance", "0")


@pytest.mark.slow
def test_samples_of_one_decision_cannot_be_tried_out(tmp_path: Path) -> None:
    text = (REPOSITORY / "specs" / "quickstart.yaml").read_text()
    plain = "eval: {use: accuracy, temperature: 0.1, max_tokens: 64}"
    assert plain in text
    (tmp_path / "voted.yaml").write_text(text.replace(plain, "eval: {use: maj_at_k, k: 8, max_tokens: 64}"))
    assert "maj@8" in refused(tmp_path, "power", "voted.yaml", "--samples", "16")
    assert "no number" in asked(tmp_path, "power", "voted.yaml")


SEARCHES = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, test: 40, split: {test: 10}}
verifier: steps
eval: {use: discovery, samples: 16, batch: 8}
seeds: SEEDS
conditions:
  sampled: {train_on: []}
  learns: {train_on: [], eval: {by: training, trainer: {use: sdpo, num_generations: 8, max_tokens: 256}}}
hypotheses: {claims: [learns > sampled]}
"""


def power_of_searches(folder: Path, seeds: str) -> dict[str, Any]:
    (folder / "toy.yaml").write_text(SEARCHES.replace("SEEDS", seeds))
    found: dict[str, Any] = asked_json(folder, "power", str(folder / "toy.yaml"), "--json")["claims"][0]
    return found


def test_a_search_that_trains_counts_as_trained_and_gives_one_value_a_question(tmp_path: Path) -> None:
    design = power_of_searches(tmp_path, "[1, 2]")["design"]
    assert (design["seeds"], design["samples"], design["trained"]) == (2, 1, [True, False])


def test_power_says_that_a_claim_on_single_searches_is_a_sign_test(tmp_path: Path) -> None:
    said = [
        any("sign test" in note for note in power_of_searches(tmp_path, seeds)["notes"]) for seeds in ("[1]", "[1, 2]")
    ]
    assert said == [True, False]


def test_a_plan_of_single_searches_says_so_below_its_power(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SEARCHES.replace("SEEDS", "[1]"))
    assert "the claim is a sign test" in " ".join(asked(tmp_path, "plan", str(tmp_path / "toy.yaml")).split())


@pytest.mark.slow
def test_power_prices_looks_of_any_number_as_the_spec_allows_them(tmp_path: Path) -> None:
    spec = tmp_path / "any.yaml"
    spec.write_text(f"extends: {SPEC}\nname: any\nhypotheses: {{looks: any}}\n")
    lines = asked(tmp_path, "plan", str(spec)).splitlines()
    (said,) = [line for line in lines if line.startswith("can detect")]
    assert (
        said.startswith("can detect 5.7 points (6.2 points at the hardest level of 3 claims)")
        and "at alpha 0.05, valid at any look" in said
    )
    assert "valid at any look" in asked(tmp_path, "power", str(spec))


GROUPED = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: rows.jsonl, split: {test: 400}}
conditions: {a: {train_on: []}, b: {train_on: [], eval: {temperature: 0.5}}}
hypotheses: {claims: [b > a]}
"""
TEXTS = [f"What is {i} + 1?" for i in range(400)]


@pytest.fixture
def grouped(tmp_path: Path) -> str:
    """A spec of 400 questions in tens.csv (40 groups) and own.csv (each its own)."""
    rows = [json.dumps({"question": text, "answer": str(i + 1)}) + "\n" for i, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    (tmp_path / "grouped.yaml").write_text(GROUPED)
    for name, size in (("tens", 10), ("own", 1)):
        of = [f"{question_id(text)},{i // size}\n" for i, text in enumerate(TEXTS)]
        (tmp_path / f"{name}.csv").write_text("question_id,group\n" + "".join(of))
    return str(tmp_path / "grouped.yaml")


def test_groups_of_questions_detect_less_than_the_questions_each_for_itself(tmp_path: Path, grouped: str) -> None:
    tens = ["--groups", "tens.csv"]
    found = [
        asked_json(tmp_path, "power", grouped, "--json", *options)["claims"][0]
        for options in ([], [*tens, "--icc", "0"], tens, ["--groups", "own.csv"])
    ]
    plain, untied, tied, own = (one["alone"]["detectable"] for one in found)
    assert own == pytest.approx(plain, rel=0.05) and untied == pytest.approx(plain, rel=0.1)
    assert tied == pytest.approx(plain * 1.9**0.5, rel=0.1)  # 1 + 9 * .1 times the variance, and few degrees of freedom
    low, high = found[2]["alone"]["detectable_range"]
    assert low == pytest.approx(untied) and high > tied and found[2]["spread"]["icc_source"].startswith("assumed")


def test_a_plan_says_what_a_field_group_would_leave(tmp_path: Path, grouped: str) -> None:
    plan, workspace = build_plan(load_spec(Path(grouped))), Workspace(tmp_path / "none")
    tied = {
        content: [replace(one, meta={"group": TEXTS.index(one.text) // 10}) for one in asked]
        for content, asked in plan.data.items()
    }
    (said,) = [line for line in power_lines(plan_power(replace(plan, data=tied), workspace)) if "by groups" in line]
    wanted = asked_json(tmp_path, "power", grouped, "--groups", "tens.csv", "--json")["overall"]["alone"]["detectable"]
    assert f"this detects {wanted * 100:.1f} points" in said and "400 questions in 40 groups" in said
    assert not any("by groups" in line for line in power_lines(plan_power(plan, workspace)))


def test_groups_that_are_none_are_refused(tmp_path: Path, grouped: str) -> None:
    assert "no question has a field 'grp'" in refused(tmp_path, "power", grouped, "--groups", "grp")
    assert "a number of groups" in refused(tmp_path, "power", "--questions", "9", "--groups", "10")
    assert "name those with --groups" in refused(tmp_path, "power", grouped, "--icc", "0.1")


def test_two_groups_get_no_figure_and_the_reason(tmp_path: Path) -> None:
    out = " ".join(asked(tmp_path, "power", "--questions", "400", "--groups", "2").split())
    assert "no figure" in out and "refused under 3 groups" in out


@pytest.mark.slow
def test_a_declared_interaction_has_a_figure_of_its_own(tmp_path: Path) -> None:
    spec = tmp_path / "by.yaml"
    claims = "[filtered > baseline, {compare: [filtered, baseline], by: steps}]"
    spec.write_text(f"extends: {SPEC}\nname: by\nhypotheses: {{claims: {claims}}}\n")
    plain, by = asked_json(tmp_path, "power", str(spec), "--json")["claims"]
    assert by["claim"] == "filtered against baseline differs by steps" and len(by["design"]["groups"]) == 4
    assert by["alone"]["detectable"] > 2 * plain["alone"]["detectable"] and by["about"] == "checkpoint"
    assert "that of the smallest group of questions" in asked(tmp_path, "power", str(spec))
