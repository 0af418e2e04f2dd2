"""Digests: what changes them, what does not, and which stages arms share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsd.plugins.errors import InputError
from nsd.runner.cli.run import run_plan
from nsd.runner.cli.validate import validate_files
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.changes import Nearest
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from toy_plan import SPEC, plan_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and something that has a model's files."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    for name, count in (("train", 20), ("test", 5)):
        rows = [{"q": f"{name} {i}?", "a": str(i), "s": f"it is #### {i}"} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def digests(plan: Plan) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for stage in plan.stages.values():
        kinds.setdefault(stage.kind, set()).add(stage.digest)
    return kinds


def test_arms_share_what_they_have_in_common(place: Path) -> None:
    plan = plan_of(place)
    counts = {kind: len(found) for kind, found in digests(plan).items()}
    # One set of samples serves both thresholds; every arm has its own model but the untrained one.
    assert counts == {"score": 5, "train": 4, "sample": 6, "label": 2}


def test_every_input_comes_before_its_user(place: Path) -> None:
    seen: set[str] = set()
    for stage in plan_of(place).stages.values():
        assert set(stage.inputs.values()) <= seen
        seen.add(stage.digest)


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        ("learning_rate: 5e-4", "learning_rate: 4e-4", {"train", "sample", "label", "score"}),
        ("threshold: 0.75", "threshold: 0.5", {"label", "train", "sample", "score"}),
        ("k: 4", "k: 5", {"sample", "label", "train", "score"}),
        ("temperature: 0.1", "temperature: 0.2", {"sample", "score"}),
        ("Q: {question} A:", "Question: {question}", {"train", "sample", "label", "score"}),
        ("seeds: [1]", "seeds: [2]", {"train", "sample", "label", "score"}),
        ("test: 4}", "test: 3}", {"sample", "score"}),
        ("dtype: float32", "dtype: bfloat16", {"train", "sample", "label", "score"}),
    ],
)
def test_a_field_changes_the_stages_it_can_change(place: Path, old: str, new: str, kinds: set[str]) -> None:
    before, after = digests(plan_of(place)), digests(plan_of(place, SPEC.replace(old, new)))
    assert {kind for kind in before if before[kind] != after[kind]} == kinds


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch_size: 4}", "batch_size: 9}"),
        ("max_hours: 1", "max_hours: 2, processes: 2"),
        ("name: toy", "name: other"),
        ("name: toy", "name: toy\nquestion: Why?"),
        ("oracle: {", "upper_bound: {"),
    ],
)
def test_speed_places_and_names_change_no_digest(place: Path, old: str, new: str) -> None:
    assert digests(plan_of(place)) == digests(plan_of(place, SPEC.replace(old, new)))


def test_moving_the_data_and_the_model_changes_no_digest(place: Path, tmp_path: Path) -> None:
    import shutil

    moved = shutil.copytree(place, tmp_path / "elsewhere")
    assert digests(plan_of(place)) == digests(plan_of(moved))


def test_other_weights_change_every_stage(place: Path, tmp_path: Path) -> None:
    import shutil

    moved = shutil.copytree(place, tmp_path / "elsewhere")
    (moved / "model" / "model.safetensors").write_bytes(b"other weights")
    before, after = digests(plan_of(place)), digests(plan_of(moved))
    assert not any(before[kind] & after[kind] for kind in before)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    rate=st.floats(1e-6, 1e-2),
    epochs=st.integers(1, 5),
    batch=st.integers(1, 8),
)
def test_train_digests_are_equal_exactly_where_the_configs_are(
    place: Path, rate: float, epochs: int, batch: int
) -> None:
    trainer = f"trainer: {{use: sft, epochs: {epochs}, batch_size: {batch}, learning_rate: {rate!r}}}"
    text = SPEC.replace("trainer: {use: sft, epochs: 2, batch_size: 2, learning_rate: 5e-4}", trainer)
    same = (rate, epochs, batch) == (5e-4, 2, 2)
    assert (digests(plan_of(place, text))["train"] == digests(plan_of(place))["train"]) == same


def test_rounds_relabel_with_the_newest_model(place: Path) -> None:
    text = SPEC.replace("label_with: baseline}\n  filtered", "label_with: baseline, rounds: 3}\n  filtered")
    plan = plan_of(place, text, only=["student"])
    counts = {kind: len(found) for kind, found in digests(plan).items()}
    assert counts == {"train": 4, "sample": 6, "label": 3, "score": 3}
    names = [run.run for run in plan.runs]
    assert names == ["toy/student@round1/seed1", "toy/student@round2/seed1", "toy/student/seed1"]


def test_init_teacher_starts_from_the_labelling_model(place: Path) -> None:
    text = SPEC.replace("label_with: baseline}\n  filtered", "label_with: baseline, init: teacher}\n  filtered")
    plan = plan_of(place, text, only=["student"])
    final = plan.stages[plan.runs[0].train_digest or ""]
    baseline = next(s for s in plan.stages.values() if s.kind == "train" and "labels" not in s.inputs)
    assert final.inputs["start"] == baseline.digest


@pytest.mark.parametrize("text", ["match: steps", "match: {by: steps, to: oracle}"])
def test_match_steps_gives_every_arm_the_largest_arms_steps(place: Path, text: str) -> None:
    plan = plan_of(place, SPEC + text + "\n")
    steps = {stage.job.budget.steps for stage in plan.stages.values() if stage.kind == "train"}
    assert steps == {12}  # 12 examples, 2 epochs, batch 2


def test_match_tokens_needs_an_arm_with_known_texts(place: Path) -> None:
    with pytest.raises(InputError, match="known before the run"):
        plan_of(place, SPEC + "match: {by: tokens, to: student}\n")


def test_noisy_oracle_needs_no_samples(place: Path) -> None:
    text = SPEC.replace("hypotheses", "") + "  "
    text = SPEC.replace(
        "  oracle: {train_on: [labeled, unlabeled]}",
        "  noisy: {train_on: [labeled, pseudo], labeler: {use: noisy_oracle, accuracy: 0.5}}",
    )
    plan = plan_of(place, text, only=["noisy"])
    assert {kind: len(found) for kind, found in digests(plan).items()} == {
        "label": 1,
        "train": 1,
        "sample": 1,
        "score": 1,
    }


def test_smoke_cuts_counts_and_never_what_shapes_quality(place: Path) -> None:
    plan = plan_of(place, SPEC.replace("labeled: 6, unlabeled: 6", "labeled: 6, unlabeled: 6"), smoke=True)
    sample = next(stage for stage in plan.stages.values() if stage.title.startswith("sample student"))
    assert sample.key["sampling"]["n"] == 4 and sample.key["sampling"]["max_tokens"] == 16
    assert plan.name == "toy-smoke" and not set(plan.stages) & set(plan_of(place).stages) - _untouched(plan)


def _untouched(plan: Plan) -> set[str]:
    # The toy's splits are smaller than the smoke limit, so stages without training steps stay the same.
    return {stage.digest for stage in plan.stages.values() if stage.kind != "train" and not plan.needs(stage.digest)}


def test_an_impossible_split_says_what_there_is(place: Path) -> None:
    with pytest.raises(InputError, match="20"):
        plan_of(place, SPEC.replace("labeled: 6, unlabeled: 6", "labeled: 16, unlabeled: 6"))


def test_only_an_unknown_condition_lists_the_known(place: Path) -> None:
    with pytest.raises(InputError, match="there are base, baseline"):
        plan_of(place, only=["nope"])


def test_what_changed_is_told_of_the_nearest() -> None:
    near = Manifest(kind="train", digest="near", settings={"a": 1, "b": {"c": 2}})
    far = Manifest(kind="train", digest="far", settings={"a": 9, "b": {"c": 8}})
    assert Nearest([far, near]).changed({"a": 1, "b": {"c": 3}}) == ["b.c: 2 -> 3"]
    assert Nearest([]).changed({"a": 1}) is None


BAD_GOLD = """\
name: bad
model: builtin:wordmath-1m
data: {use: jsonl, train: FOLDER/train.csv, unlabeled: FOLDER/more.csv, test: FOLDER/test.csv,
  fields: {question: q, answer: a}, split: {labeled: 2, unlabeled: 2, test: 3}}
verifier: numeric
trainer: {use: grpo}
labeler: {use: consensus}
eval: {use: accuracy}
seeds: [1, 2]
conditions:
  base: {train_on: []}
  student: {train_on: [pseudo], label_with: base}
"""


def test_gold_answers_that_are_no_number_are_named_with_their_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = {"train": ["1", "2"], "more": ["12,5", "NA"], "test": ["3/4", "5", "1, 2"]}
    for name, answers in cells.items():
        rows = "".join(f'{name} {i},"{answer}"\n' for i, answer in enumerate(answers))
        (tmp_path / f"{name}.csv").write_text(f"q,a\n{rows}")
    spec = tmp_path / "bad.yaml"
    spec.write_text(BAD_GOLD.replace("FOLDER", str(tmp_path)))
    unlabeled, test = (note for note in build_plan(load_spec(spec)).notes if "cannot read" in note)
    assert unlabeled == (
        "1 of 2 unlabeled questions have a gold answer that verifier 'numeric' cannot read, so their labels count as "
        f"neither right nor wrong: {tmp_path}/more.csv:2 ('12,5')"
    )
    assert test.startswith("2 of 3 test questions have a gold answer that verifier 'numeric' cannot read, so nothing")
    assert f"{tmp_path}/test.csv:2 ('3/4')" in test and f"{tmp_path}/test.csv:4 ('1, 2')" in test
    assert validate_files([spec], gold=True, run_files=False, as_json=False) == 2
    printed = capsys.readouterr().err
    for row in ("test.csv:2: the verifier cannot read the gold answer '3/4'", "more.csv:2: the verifier cannot read"):
        assert f"{tmp_path}/{row}" in printed
    assert "6 of 6" not in printed and "3 of 6 gold answers of jsonl verify under numeric" in printed


@pytest.mark.slow
def test_a_run_says_what_it_cannot_read_before_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("q,a,said\nhow many?,3/4,#### 4\n")
    spec = tmp_path / "bad.yaml"
    spec.write_text(
        "name: bad\nmodel: builtin:wordmath-1m\nverifier: numeric\neval: {use: accuracy}\n"
        f"data: {{use: jsonl, train: {tmp_path}/rows.csv, fields: {{question: q, answer: a}}, split: {{test: 1}}}}\n"
        f"engine: {{use: replay, path: {tmp_path}/rows.csv, fields: {{question: q, completion: said}}}}\n"
        "conditions: {base: {train_on: []}}\n"
    )
    workspace = Workspace(tmp_path / "workspace")
    assert run_plan(build_plan(load_spec(spec)), workspace, [], None, as_json=True) == 0
    printed = capsys.readouterr()
    assert f"cannot read, so nothing scores as correct on them: {tmp_path}/rows.csv:2 ('3/4')" in printed.err
    (manifest,) = [one.to_json() for one in workspace.manifests("score")]
    assert manifest["eval"]["mean"] == 0, "a gold answer of 3/4 is not 4"
