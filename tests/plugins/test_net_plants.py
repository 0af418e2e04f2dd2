"""What single faults planted by hand in datasets, engines, labelers and verifiers got past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins import files, models
from nsd.plugins.api import (
    Completion,
    ModelRef,
    Pools,
    Question,
    Request,
    Sampling,
    SplitConfig,
    Splits,
    StopReason,
    question_id,
)
from nsd.plugins.chat import prompt_ids
from nsd.plugins.code import Code, code_of_file
from nsd.plugins.datasets import gsm8k, math, numinamath, sources
from nsd.plugins.datasets.jsonl import Jsonl
from nsd.plugins.datasets.split import data_hash, split
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.replay import recorded_end
from nsd.plugins.errors import InputError
from nsd.plugins.labelers.consensus import Consensus
from nsd.plugins.labelers.noisy_oracle import NoisyOracle
from nsd.plugins.places import Folder
from nsd.plugins.verifiers import math as math_verifier
from nsd.plugins.verifiers.boxed import last_boxed
from nsd.plugins.verifiers.gold import unreadable_notes
from nsd.plugins.verifiers.numeric import Numeric
from nsd.plugins.verifiers.voting import majority
from tiny_model import make_tiny_model, make_tokenizer

# --------------------------------------------------------------------------- engines and models


def test_a_chats_template_writes_every_special_token_that_it_gets() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 2)]
    )
    chat = prompt_ids(tokenizer, [{"role": "user", "content": "Two?"}])
    assert chat[:2] != [2, 2] and chat[0] == 2, "the template's own turn, and no second start before it"
    assert prompt_ids(tokenizer, "Two?")[0] == 2


@pytest.mark.slow
def test_an_engine_with_another_attention_or_device_loads_its_own_model(tmp_path: Path) -> None:
    ref = ModelRef(str(make_tiny_model(tmp_path)))
    for attention in ("eager", "sdpa"):
        loaded = HfEngine(HfEngine.Config(device="cpu", attention=attention))._load(ref)
        assert loaded.model.config._attn_implementation == attention
    HfEngine().close()


def test_a_models_stamp_holds_its_adapters_files(tmp_path: Path) -> None:
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.safetensors").write_text("1")
    ref = ModelRef(str(tmp_path / "base"), adapter=str(tmp_path / "adapter"))
    before = models.stamp(ref)
    (tmp_path / "adapter" / "adapter.safetensors").write_text("12")
    assert models.stamp(ref) != before


def test_a_revision_is_asked_of_weights_and_tokenizer_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import transformers

    folder = make_tiny_model(tmp_path)
    asked = []
    for name in ("AutoTokenizer", "AutoModelForCausalLM"):
        automatic = getattr(transformers, name)

        def spy(path: str, *, revision: str | None, real: Any = automatic.from_pretrained, **more: Any) -> Any:
            asked.append(revision)
            return real(path, **more)

        monkeypatch.setattr(automatic, "from_pretrained", spy)
    models.load_model(ModelRef(str(folder), revision="a-tag"), device="cpu")
    assert asked == ["a-tag", "a-tag"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        *((word, StopReason.STOP) for word in (None, "stop", "eos", "end_turn", "STOP")),
        *((word, StopReason.LENGTH) for word in ("length", "max_tokens", "MAX_TOKENS")),
        *((word, StopReason.ERROR) for word in ("error", "content_filter", "abort")),
    ],
)
def test_every_word_for_an_end_means_what_it_says(word: str | None, reason: StopReason) -> None:
    assert recorded_end(word, "here") is reason


# --------------------------------------------------------------------------- datasets


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is asked of the hub; it answers with one row that fits every dataset."""
    found: list[tuple[Any, ...]] = []
    row = {"question": "One?", "problem": "One?", "answer": "#### 1", "solution": r"\boxed{1}", "q": "One?", "a": "1"}

    def read(path: str, split: str, subset: str | None = None, revision: str | None = None) -> list[sources.Row]:
        found.append((path, split, subset, revision))
        return [sources.Row(f"{path}[{split}]", row)]

    monkeypatch.setattr(sources, "_read_hub", read)
    return found


def test_a_revision_and_a_subset_reach_the_hub(asked: list[tuple[Any, ...]]) -> None:
    gsm8k.Gsm8k(gsm8k.Gsm8k.Config(revision="r", subset="socratic")).pools()
    assert asked == [("openai/gsm8k", split, "socratic", "r") for split in ("train", "test")]
    asked.clear()
    numinamath.NuminaMath(numinamath.NuminaMath.Config(revision="r")).pools()
    assert asked == [("AI-MO/NuminaMath-CoT", "train", None, "r")]
    asked.clear()
    math.MathProblems(math.MathProblems.Config(revision="r", test="math500")).pools()
    assert asked == [
        *(("EleutherAI/hendrycks_math", "train", subset, "r") for subset in math.HUB_SUBSETS),
        ("HuggingFaceH4/MATH-500", "test", None, None),
    ]
    asked.clear()
    fields = {"question": "q", "answer": "a"}
    Jsonl(
        Jsonl.Config(hub="o/n", train="train", test="dev", subset="s", revision="r", fields=fields)  # type: ignore[arg-type]
    ).pools()
    assert asked == [("o/n", "train", "s", "r"), ("o/n", "dev", "s", "r")]


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_what_the_other_dataset_says_of_its_rows_is_said_too(tmp_path: Path) -> None:
    train = lines(tmp_path / "train.jsonl", [{"question": "One?", "answer": "1"}])
    other = lines(tmp_path / "other.jsonl", [{"question": "Two?", "answer": None}])
    config = Jsonl.Config.model_validate({"train": train, "unlabeled_from": {"use": "jsonl", "train": other}})
    pools = Jsonl(config).pools()
    assert [one.text for one in pools.unlabeled or []] == ["Two?"]
    assert pools.notes == (f"1 row without a gold answer: {other}:1",)


def test_a_subsets_own_folder_comes_before_the_one_above(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", [{"question": "above"}])
    lines(tmp_path / "main" / "train.jsonl", [{"question": "in main"}])
    assert [row.values["question"] for row in sources.read(str(tmp_path), "train", "main")] == ["in main"]
    assert [row.values["question"] for row in sources.read(str(tmp_path), "train")] == ["above"]


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({"types": ["Algebra"]}, ["b", "c"]),
        ({"levels": [1]}, ["a", "b"]),
        ({"levels": [1], "types": ["Algebra"]}, ["b"]),
    ],
)
def test_levels_and_types_filter_together_and_each_alone(
    config: dict[str, Any], kept: list[str], tmp_path: Path
) -> None:
    kinds = (("a", "Level 1", "Geometry"), ("b", "Level 1", "Algebra"), ("c", "Level 5", "Algebra"))
    rows = [{"problem": p, "solution": r"\boxed{1}", "level": level, "type": kind} for p, level, kind in kinds]
    for name in ("train", "test"):
        lines(tmp_path / f"{name}.jsonl", rows)
    pools = math.MathProblems(math.MathProblems.Config(path=str(tmp_path), **config)).pools()
    assert [one.text for one in pools.train] == [one.text for one in pools.test or []] == kept


@pytest.mark.parametrize("field", ["answer", "solution", "context", "text", "meta"])
def test_every_part_of_a_question_is_in_the_hash_of_the_data(field: str) -> None:
    plain = Question("id", "text", "1", "so 1", "a hint", {"level": 1})
    values = {"answer": "2", "solution": "so 2", "context": "another", "text": "other", "meta": {"level": 2}}
    changed = Question(**{**{name: getattr(plain, name) for name in values}, "id": "id", field: values[field]})
    assert (
        data_hash([changed])
        != data_hash([plain])
        == data_hash([Question("id", "text", "1", "so 1", "a hint", {"level": 1})])
    )


# --------------------------------------------------------------------------- labelers and verifiers


def test_each_wrong_label_is_drawn_for_its_own_question() -> None:
    rows = [Question(question_id(str(i)), str(i), str(i), f"#### {i}") for i in range(60)]
    found = NoisyOracle(NoisyOracle.Config(accuracy=0)).label(rows, {}, Numeric(), 0)
    assert len({one.label for one in found}) > 20


def test_a_wrong_answer_goes_to_the_end_of_a_solution_that_names_it_before() -> None:
    rows = [Question(question_id(n), n, n, f"{n} apples, and {n} pears: no, {n}.") for n in ("12", "77")]
    first, second = NoisyOracle(NoisyOracle.Config(accuracy=0)).label(rows, {}, Numeric(), 0)
    assert (first.target, second.target) == ("12 apples, and 12 pears: no, 77.", "77 apples, and 77 pears: no, 12.")


@pytest.mark.parametrize(("a", "b", "equal"), [("0", "0.000001", False), ("0", "0.0000009", True), ("-5", "5", False)])
def test_two_numbers_are_one_below_the_tolerance_and_not_at_it(a: str, b: str, equal: bool) -> None:
    assert Numeric().same(a, b) is Numeric().same(b, a) is equal


def test_the_inner_of_nested_boxes_is_the_later_one() -> None:
    assert last_boxed(r"\boxed{1 + \boxed{2} + 3}") == "2"
    assert last_boxed(r"\boxed{1} and \fbox{2}") == "2"


def test_a_comparison_has_the_cpu_seconds_of_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, int]] = []

    def ask(a: str, b: str, cpu_seconds: int) -> bool:
        asked.append((a, b, cpu_seconds))
        return cpu_seconds > 5

    helper = math_verifier._Helper()
    monkeypatch.setattr(helper, "_ask", ask)
    monkeypatch.setattr(math_verifier, "_helper", helper)
    short, long = (math_verifier.Math(math_verifier.Math.Config(cpu_seconds=n)) for n in (2, 9))
    found = [one.same(*pair) for one in (short, long) for pair in (("x", "y"), ("y", "x"))]
    assert found == [False, False, True, True], "a verdict that ran out of time is none for more time"
    assert asked == [("x", "y", 2), ("x", "y", 9)]


def test_unreadable_gold_is_told_for_every_split_with_what_becomes_of_it() -> None:
    bad = [Question("q", "text", "3/4")]
    said = unreadable_notes(Splits(labeled=bad, unlabeled=bad, test=bad), Numeric())
    assert [note.split(" have ")[0] for note in said] == [
        f"1 of 1 {name} questions" for name in ("labeled", "unlabeled", "test")
    ]
    assert ["neither right nor wrong" in note for note in said] == [False, True, False]


class Close(Numeric):
    """Numbers one apart are the same."""

    def same(self, a: str, b: str) -> bool:
        return abs(int(a) - int(b)) <= 1


@pytest.mark.parametrize("answers", [["2", "1"], ["1", "2"]])
def test_a_class_goes_by_the_earlier_text_where_two_were_given_as_often(answers: list[str]) -> None:
    found = majority(answers, Close())
    assert (found.winner, found.tally, found.votes) == ("1", {"1": 2}, 2)


# --------------------------------------------------------------------------- plugins in files


def test_a_file_beside_a_plugin_never_stands_for_pythons_own_module(tmp_path: Path) -> None:
    for name in ("json", "helper", "reports"):
        (tmp_path / f"{name}.py").write_text("")
    folder = Folder(tmp_path)
    assert [folder.holds(name) for name in ("json", "helper", "reports", "absent")] == [False, True, False, False]


def test_a_class_of_another_kind_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from nsd.plugins.rewards.correct import Correct\nclass Mine(Correct): pass\n")
    with pytest.raises(InputError, match="Mine is a reward, not a verifier"):
        files.load("verifier", "./mine.py:Mine", tmp_path)


def test_what_enters_a_digest_of_an_installed_plugin_holds_its_version() -> None:
    assert Code("t", "theirs", "1.2").to_json() == {
        "tree": "t",
        "distribution": "theirs",
        "distribution_version": "1.2",
    }
    assert Code("t").to_json() == {"tree": "t"}


def test_a_failed_sample_has_no_vote_whatever_its_text_says() -> None:
    question = Question("q", "How many?")
    ends = [StopReason.ERROR, StopReason.ERROR, StopReason.LENGTH]
    drawn = [Completion("q", i, f"#### {5 if i < 2 else 6}", 1, end) for i, end in enumerate(ends)]
    (found,) = Consensus(Consensus.Config(k=3)).label([question], {"q": drawn}, Numeric(), 0)
    assert (found.label, found.target, found.tally) == ("6", "#### 6", {"6": 1})


def test_what_nobody_can_score_is_told_but_for_unlabeled_questions() -> None:
    nothing = [Question(str(i), str(i)) for i in range(6)]
    _, report = split(Pools(nothing[:2], nothing[2:4], nothing[4:]), SplitConfig(labeled=2, unlabeled=2, test=1))
    assert report.notes() == [
        f"{n} of {n} {name} questions have no gold answer: they count as wrong"
        for n, name in ((2, "labeled"), (1, "test"))
    ]


@pytest.mark.parametrize("said", ["the answer is", "The Answer Is", "ANSWER IS:"])
def test_an_answer_is_announced_in_any_case(said: str) -> None:
    assert Numeric().extract(f"{said} 7. Checked 8 times.") == "7"


@pytest.mark.slow
def test_a_call_that_goes_on_says_no_error_twice(tmp_path: Path) -> None:
    small = ModelRef(str(make_tiny_model(tmp_path, max_position_embeddings=32)))
    made = HfEngine(HfEngine.Config(device="cpu"))
    requests = [Request("long", "x" * 40), Request("short", "x")]
    batches = list(made.generate(small, requests, Sampling(2, 0.0, 2), 7, frozenset({("long", 0), ("short", 1)})))
    made.close()
    assert sorted((one.question_id, one.sample) for batch in batches for one in batch) == [("long", 1), ("short", 0)]


def test_what_an_import_does_counts_though_nothing_uses_the_name(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("import helper\nfrom tables import RULES\n\nclass Mine:\n    size = 1\n")
    (tmp_path / "tables.py").write_text("RULES = [1]\n")
    trees = []
    for done in ("print(1)", "print(2)", "UNUSED = 3", "UNUSED = 4"):
        (tmp_path / "helper.py").write_text(f"{done}\n")
        trees.append(code_of_file(plugin, "Mine").tree)
    assert trees[0] != trees[1] != trees[2] == trees[3], "a constant that nobody names is another matter"


def test_the_shortest_target_is_the_one_of_the_fewest_tokens() -> None:
    drawn = [("a b c d #### 5", 9), ("one very long way of saying it #### 5", 3), ("no #### 6", 1)]
    samples = [Completion("q", i, text, tokens, StopReason.STOP) for i, (text, tokens) in enumerate(drawn)]
    labeler = Consensus(Consensus.Config(k=3, target="shortest"))
    (found,) = labeler.label([Question("q", "How many?")], {"q": samples}, Numeric(), 0)
    assert found.target == drawn[1][0]


def test_the_last_mark_of_a_gsm8k_solution_announces_the_answer() -> None:
    row = sources.Row("here", {"question": "How many?", "answer": "First #### 3 are lost.\n#### 5"})
    assert gsm8k._question(row).answer == "5"
