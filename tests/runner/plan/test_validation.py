"""Which questions watch a training, that no arm trains on them, and what a plan says of budgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nsd.plugins.api import Question, Splits
from nsd.plugins.errors import InputError
from nsd.plugins.seeds import stream
from nsd.plugins.words import BUDGET_OF_SECONDS
from nsd.runner.plan.jobs import ToTrain
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.plan.validation import choose
from nsd.runner.spec.load import load_spec
from toy_plan import SPEC, plan_of

WATCHED = SPEC + "validation: {questions: 2, every: 5}\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    for name, count in (("train", 20), ("test", 5)):
        rows = [{"q": f"{name} {i}?", "a": str(i), "s": f"it is #### {i}"} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def trainings(plan: Plan) -> dict[str, tuple[Stage, ToTrain]]:
    """Each condition's training; those of one seed."""
    found = {}
    for stage in plan.stages.values():
        if isinstance(stage.job, ToTrain):
            found[stage.used_by[0].partition("/")[0]] = (stage, stage.job)
    return found


def watching(plan: Plan, job: ToTrain) -> list[Question]:
    assert job.validation is not None
    return plan.data[job.validation.questions]


def test_every_arm_is_watched_by_the_same_labeled_questions_with_their_answers(place: Path) -> None:
    plan = plan_of(place, WATCHED)
    found = [watching(plan, job) for _, job in trainings(plan).values()]
    assert len(found) == 4 and all(questions == found[0] for questions in found)
    labeled = {q.id for q in trained_on(plan_of(place), "labeled")}
    assert len(found[0]) == 2 and {q.id for q in found[0]} < labeled
    assert all(question.answer is not None for question in found[0])


def trained_on(plan: Plan, *sources: str) -> list[Question]:
    every = [source for _, job in trainings(plan).values() for source in job.train_on]
    return [question for one in every if not sources or one.source in sources for question in plan.data[one.data]]


def test_no_arm_trains_on_what_it_is_watched_by_and_loses_nothing_else(place: Path) -> None:
    plan, whole = plan_of(place, WATCHED), plan_of(place)
    taken = {question.id for _, job in trainings(plan).values() for question in watching(plan, job)}
    left, all_there = ({question.id for question in trained_on(one)} for one in (plan, whole))
    assert not left & taken and left | taken == all_there


SMALLER = "  less: {train_on: [labeled], data: {split: {labeled: 4, unlabeled: 3}}}\n"
NONE = "  none: {train_on: [unlabeled], data: {split: {labeled: 0, unlabeled: 14}}}\n"


@pytest.mark.parametrize("arm", [SMALLER, NONE], ids=["fewer labeled", "none labeled"])
def test_arms_that_take_other_numbers_of_the_same_data_are_watched_by_the_same_questions(place: Path, arm: str) -> None:
    plan = plan_of(place, WATCHED.replace("resources:", f"{arm}resources:"))
    found = trainings(plan)
    assert len(found) == 5
    assert len({job.validation.questions for _, job in found.values() if job.validation}) == 1
    taken = {question.id for _, job in found.values() for question in watching(plan, job)}
    assert not taken & {question.id for question in trained_on(plan)}


def test_a_part_of_a_plan_is_that_part_of_the_whole_plan(place: Path) -> None:
    text = WATCHED.replace("resources:", f"{SMALLER}resources:")
    assert set(plan_of(place, text, only=["baseline"]).stages) <= set(plan_of(place, text).stages)


def test_the_questions_move_with_the_splits_seed_and_not_with_the_runs(place: Path) -> None:
    first = plan_of(place, WATCHED)
    other_run = plan_of(place, WATCHED.replace("seeds: [1]", "seeds: [2]"))
    other_split = plan_of(place, WATCHED.replace("test: 4}", "test: 4, seed: 3}"))
    ids = [{q.id for q in watching(plan, trainings(plan)["baseline"][1])} for plan in (first, other_run, other_split)]
    assert ids[0] == ids[1] != ids[2]


def test_what_validation_draws_is_a_stream_of_the_runs_seed_on_record(place: Path) -> None:
    for seed in (1, 2):
        stage, job = trainings(plan_of(place, WATCHED.replace("seeds: [1]", f"seeds: [{seed}]")))["baseline"]
        assert job.validation is not None and job.validation.seed == stream(seed, "validation")
        assert stage.settings["validation"]["seed"] == stream(seed, "validation")


def test_the_evaluations_verifier_judges_it_also_where_training_has_another(place: Path) -> None:
    _, job = trainings(plan_of(place, WATCHED + "train_verifier: math\nverifier: choice\n"))["student"]
    assert job.validation is not None
    assert (job.verifier.use, job.validation.verifier.use) == ("math", "choice")


@pytest.mark.parametrize("written", ["{use: avg_at_k, k: 3}", None])
def test_its_protocol_is_its_own_or_the_evaluations(place: Path, written: str | None) -> None:
    own = f", protocol: {written}" if written else ""
    _, job = trainings(plan_of(place, SPEC + f"validation: {{questions: 2, every: 5{own}}}\n"))["baseline"]
    assert job.validation is not None
    assert job.validation.protocol.use == ("avg_at_k" if written else "accuracy")


def test_questions_without_an_answer_watch_nothing_and_too_few_with_one_are_an_error_with_its_place(
    place: Path,
) -> None:
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    for row in rows[:19]:
        row["a"] = None
    (place / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"toy.yaml:\d+: validation: 2 labeled questions with an answer wanted"):
        plan_of(place, WATCHED)


@pytest.mark.parametrize(
    ("verifier", "what", "there"),
    [("numeric", "labeled questions with an answer", 1), ("code", "labeled questions", 2)],
)
def test_too_few_questions_are_told_as_what_they_lack(place: Path, verifier: str, what: str, there: int) -> None:
    rows = "conditions: {all: {train_on: [labeled]}}\nvalidation: {questions: 3, every: 5}\n"
    data = f"data: {{use: jsonl, train: {place}/train.jsonl, test: {place}/test.jsonl, split: {{labeled: 6}}}}\n"
    path = place / "few.yaml"
    path.write_text(f"name: few\nmodel: builtin:wordmath-1m\n{data}trainer: sft\nverifier: {verifier}\n{rows}")
    few = Splits([Question("a", "A?", answer="1"), Question("b", "B?")], [], [])
    with pytest.raises(InputError) as raised:
        choose(load_spec(path), lambda condition: few)
    assert str(raised.value).partition(": ")[2] == (
        f"validation: 3 {what} wanted, the data of 'all' have {there}; take fewer, or give data.split.labeled more"
    )


def test_an_evaluation_says_how_many_test_questions_it_asks(place: Path) -> None:
    drawn = [stage for stage in plan_of(place, WATCHED, only=["base"]).stages.values() if stage.kind == "sample"]
    assert [stage.size.partition(" x ")[0] for stage in drawn] == ["4 test questions"]


def test_an_evaluation_on_the_validation_asks_its_questions_and_says_so(place: Path) -> None:
    best = "{use: best_within, k: 3, max_tokens: 16}"
    text = WATCHED.replace("{use: accuracy, temperature: 0.1, max_tokens: 16}", best)
    plan = plan_of(place, text + "match: {by: generated_tokens, amount: 500}\n", only=["baseline"])
    (questions,) = {stage.job.validation.questions for stage in plan.stages.values() if isinstance(stage.job, ToTrain)}  # type: ignore[union-attr]
    (drawn,) = [stage for stage in plan.stages.values() if stage.kind == "sample"]
    assert drawn.job.questions == questions and drawn.size.startswith("2 validation questions")  # type: ignore[union-attr]


def test_a_plan_says_in_a_line_what_trainings_are_watched_by(place: Path) -> None:
    notes = plan_of(place, SPEC + "validation: {questions: 1, every: 5}\n").notes
    assert [note for note in notes if "validation" in note] == [
        "validation: 1 labeled questions, the same in every arm, are kept from training and measured by accuracy every "
        "5 steps; the weights of the best measurement are kept"
    ]


def test_a_plan_says_where_validation_takes_more_than_a_quarter(place: Path) -> None:
    said = [note for note in plan_of(place, WATCHED).notes if "more than a quarter" in note]
    assert said == [
        "baseline, student, filtered, oracle: validation takes 2 of 6 labeled questions, more than a quarter of what "
        "could be trained on (validation.questions)"
    ]


def test_a_smoke_run_is_watched_by_few(place: Path) -> None:
    rows = [{"q": f"train {i}?", "a": str(i), "s": f"it is #### {i}"} for i in range(60)]
    (place / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = SPEC.replace("{labeled: 6", "{labeled: 50") + "validation: {questions: 20, every: 1}\n"
    plan = plan_of(place, text, smoke=True, only=["baseline"])
    assert len(watching(plan, trainings(plan)["baseline"][1])) == 16


# --------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("match", "key"),
    [
        ("{by: generated_tokens, amount: 2000}", {"generated_tokens": 2000}),
        ("{by: tokens, amount: 2000}", {"tokens": 2000}),
        ("{by: steps, amount: 7}", {"steps": 7}),
        ("{by: seconds, amount: 2.5}", {"seconds": 2.5}),
    ],
)
def test_an_amount_is_every_arms_budget_in_key_and_job(place: Path, match: str, key: dict[str, float]) -> None:
    for stage, job in trainings(plan_of(place, SPEC + f"match: {match}\n")).values():
        assert stage.key["match"] == key
        assert {name: getattr(job.budget, name) for name in key} == key


def test_steps_that_only_the_run_can_tell_are_not_made_up(place: Path) -> None:
    stage, _ = trainings(plan_of(place, SPEC + "match: {by: generated_tokens, amount: 2000}\n"))["baseline"]
    assert stage.size == "6 examples, 2,000 generated tokens"
    stage, _ = trainings(plan_of(place, SPEC + "match: {by: steps, amount: 7}\n"))["baseline"]
    assert stage.size == "6 examples, 7 steps"


@pytest.mark.parametrize(("by", "said"), [("seconds", True), ("generated_tokens", False)])
def test_a_plan_says_that_a_budget_of_seconds_is_not_reproducible(place: Path, by: str, said: bool) -> None:
    notes = plan_of(place, SPEC + f"match: {{by: {by}, amount: 600}}\n").notes
    assert any(BUDGET_OF_SECONDS in note for note in notes) is said
