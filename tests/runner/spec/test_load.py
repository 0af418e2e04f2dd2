"""`load_spec`: what an Experiment holds, what is an error, digests, speed, and no other exception on any text."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from nsd.plugins.api import OutputNeutral, PluginConfig
from nsd.runner.spec.digest import digest_config
from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.yaml import parse_yaml

SPEC = """
name: toy
question: Does it help?
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 100, unlabeled: 200, test: 50}}
labeler: {use: consensus, k: 4}
trainer: {use: sft, learning_rate: 2e-5}
seeds: [1, 2]
conditions:
  base: {train_on: []}
  baseline: {train_on: [labeled]}
  noisy: {train_on: [labeled, pseudo], label_with: baseline, rounds: 2, init: teacher}
  oracle: {train_on: [labeled, unlabeled]}
hypotheses:
  alpha: 0.01
  claims:
    - noisy > baseline
    - {compare: [noisy, oracle], not_worse_by: 0.02}
    - {compare: [oracle, baseline], equivalent_within: 0.05}
resources: {accelerators: [L4:1, A10G:1], max_usd: 3}
match: {by: steps, to: oracle}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(SPEC)
    return path


def test_an_experiment_holds_everything(spec: Path) -> None:
    experiment = load_spec(spec)
    noisy = experiment.conditions["noisy"]
    assert (experiment.name, experiment.seeds, experiment.text) == ("toy", (1, 2), SPEC)
    assert (noisy.train_on, noisy.label_with, noisy.rounds, noisy.init) == (
        ("labeled", "pseudo"),
        "baseline",
        2,
        "teacher",
    )
    assert noisy.trainer is not None
    assert noisy.trainer.config.learning_rate == 2e-5
    assert noisy.engine.use == "hf"
    assert noisy.eval.use == "accuracy"
    assert experiment.match.to == "oracle"
    assert experiment.resources.accelerators == ["L4:1", "A10G:1"]


def test_claims_are_read_in_every_form(spec: Path) -> None:
    hypotheses = load_spec(spec).hypotheses
    assert hypotheses is not None
    assert (hypotheses.alpha, hypotheses.correction) == (0.01, "holm")
    assert [(claim.kind, claim.better, claim.worse, claim.margin) for claim in hypotheses.claims] == [
        ("better", "noisy", "baseline", None),
        ("not_worse_by", "noisy", "oracle", 0.02),
        ("equivalent_within", "oracle", "baseline", 0.05),
    ]


@pytest.mark.parametrize("looks", [3, "any"])
def test_looks_are_a_number_or_any(spec: Path, looks: int | str) -> None:
    spec.write_text(SPEC.replace("  alpha: 0.01\n", f"  alpha: 0.01\n  looks: {looks}\n"))
    hypotheses = load_spec(spec).hypotheses
    assert hypotheses is not None and hypotheses.looks == hypotheses.to_json()["looks"] == looks


def test_resolved_is_json_and_loads_to_itself(spec: Path, tmp_path: Path) -> None:
    """What is resolved is a spec again: written out and read back it resolves to the same."""
    resolved = load_spec(spec).resolved
    assert json.loads(json.dumps(resolved)) == resolved
    again = dict(resolved, hypotheses=None)
    path = tmp_path / "again.yaml"
    path.write_text(json.dumps(again))
    assert load_spec(path).resolved == again


def test_blocks_make_their_plugins(spec: Path) -> None:
    condition = load_spec(spec).conditions["noisy"]
    assert condition.labeler is not None
    assert condition.labeler.make().sampling().n == 4


def test_an_experiment_does_not_change(spec: Path) -> None:
    experiment = load_spec(spec)
    with pytest.raises((AttributeError, TypeError)):
        experiment.conditions["noisy"].rounds = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        experiment.conditions["noisy"].data.config.split.labeled = 3  # type: ignore[attr-defined]


def test_a_model_is_not_needed_to_evaluate_recorded_completions(spec: Path) -> None:
    engine = "engine: {use: replay, path: x.jsonl}\n"
    text = "name: replayed\ndata: {use: wordmath}\nconditions: {all: {train_on: []}}\n" + engine
    spec.write_text(text)
    assert load_spec(spec).conditions["all"].model.path == "none"
    spec.write_text(text.replace(engine, ""))
    with pytest.raises(SpecErrors, match="has no model"):
        load_spec(spec)


def test_errors_are_data(spec: Path) -> None:
    spec.write_text(SPEC.replace("k: 4", "kk: 4"))
    with pytest.raises(SpecErrors) as caught:
        load_spec(spec)
    assert [error.to_json() for error in caught.value.errors] == [
        {
            "file": str(spec),
            "line": 6,
            "column": 27,
            "message": "unknown key 'kk' in labeler (consensus)",
            "suggestion": "did you mean 'k'?",
        }
    ]


def test_errors_come_in_the_order_of_the_file(spec: Path) -> None:
    broken = SPEC.replace("Does it help?", "1").replace("k: 4", "k: -4").replace("rounds: 2", "rounds: 0")
    spec.write_text(broken.replace("name: toy", "name: to/y"))
    with pytest.raises(SpecErrors) as caught:
        load_spec(spec)
    lines = [error.line for error in caught.value.errors]
    assert lines == sorted(lines)
    assert len(lines) == 4


# --------------------------------------------------------------------------- digests


class Inner(BaseModel):
    size: int = 1
    speed: Annotated[int, OutputNeutral()] = 1


class Config(PluginConfig):
    k: int = 1
    name: str = "x"
    mode: Literal["a", "b"] = "a"
    batch: Annotated[int, OutputNeutral()] = Field(default=1, ge=0)
    inner: Inner = Inner()
    several: list[Inner] = []
    extra: dict[str, Inner] = {}


inners = st.builds(Inner, size=st.integers(0, 2), speed=st.integers(0, 2))
configs = st.builds(
    Config,
    k=st.integers(0, 1),
    name=st.sampled_from("xy"),
    mode=st.sampled_from("ab"),
    batch=st.integers(0, 2),
    inner=inners,
    several=st.lists(inners, max_size=2),
    extra=st.dictionaries(st.sampled_from("pq"), inners, max_size=2),
)


def relevant(config: Config) -> Any:
    """What may change the output, by hand."""
    return (
        *(config.k, config.name, config.mode, config.inner.size),
        *([inner.size for inner in config.several], {key: inner.size for key, inner in config.extra.items()}),
    )


@given(configs, configs)
def test_the_digest_changes_if_and_only_if_an_output_relevant_field_does(one: Config, two: Config) -> None:
    same = json.dumps(digest_config(one), sort_keys=True) == json.dumps(digest_config(two), sort_keys=True)
    assert same == (relevant(one) == relevant(two))


@given(configs, st.integers(0, 9), st.integers(0, 9))
def test_neutral_fields_never_count(config: Config, batch: int, speed: int) -> None:
    changed = config.model_copy(update={"batch": batch, "inner": config.inner.model_copy(update={"speed": speed})})
    assert digest_config(changed) == digest_config(config)


def test_every_other_field_of_every_plugin_counts() -> None:
    """A field is in the digest unless it is marked, for every plugin there is."""
    from nsd.plugins.registry import all_plugins

    for kind, name, cls in all_plugins():
        fields = cls.Config.model_fields
        neutral = {key for key, info in fields.items() if any(isinstance(m, OutputNeutral) for m in info.metadata)}
        values = {key: info.get_default(call_default_factory=True) for key, info in fields.items()}
        assert set(digest_config(cls.Config.model_construct(**values), complete=True)) == set(fields) - neutral, (
            kind,
            name,
        )


# --------------------------------------------------------------------------- nothing but SpecErrors


def only_spec_errors(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_spec(path, run_files=False)
    except SpecErrors as errors:
        assert errors.errors
        assert str(errors)
        json.dumps([error.to_json() for error in errors.errors])


quick = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150
)


@quick
@given(st.text(max_size=200))
def test_any_text_gives_spec_errors_or_a_spec(spec: Path, text: str) -> None:
    only_spec_errors(spec, text)


@quick
@given(st.data())
def test_a_spec_with_characters_changed_gives_spec_errors_or_a_spec(spec: Path, data: st.DataObject) -> None:
    text = SPEC
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(0, 12))
        new = data.draw(st.text("{}[]:,&*!|>-#\"' \n\tab01e.<", max_size=4) | st.sampled_from(["<<: ", "*x", "&x "]))
        text = text[:start] + new + text[start + length :]
    only_spec_errors(spec, text)


VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**29, "", "no", "baseline", "./x.py:Y", "~", "a > b", "noisy", "{question}"),
    *([], [[]], [None], ["pseudo"], {}, {"use": "grpo"}, {"": 1}, {"use": None}, {"use": "jsonl"}, {"grid": {"x": []}}),
    *({"conditions": "noisy", "grid": {"labeler.k": [1, {}]}}, {"grid": {"model": ["a/b"]}}, ["noisy > base"] * 2),
    *({"x": {"train_on": ["pseudo"], "label_with": "x"}}, {"lora": {"rank": 0}}, {"use": "replay"}, "toy.yaml"),
]


@pytest.mark.slow
@quick
@given(st.data())
def test_a_spec_with_values_changed_gives_spec_errors_or_a_spec(spec: Path, data: st.DataObject) -> None:
    from nsd.runner.spec.errors import Problems

    item = parse_yaml(SPEC.encode(), spec, "toy.yaml", Problems())
    assert item is not None
    tree = item.plain()
    for _ in range(data.draw(st.integers(1, 3))):
        here: Any = tree
        while True:
            keys = [*here] if isinstance(here, dict) else list(range(len(here)))
            if isinstance(here, dict):
                keys += ["extends", "sweep", "engine", "verifier", "prompt", "track", "labeler", "seed", "rounds"]
            key = data.draw(st.sampled_from(keys or [0]))
            inside = here.get(key) if isinstance(here, dict) else here[key] if here else None
            if isinstance(inside, (dict, list)) and inside and data.draw(st.booleans()):
                here = inside
                continue
            break
        if isinstance(here, list) and not here:
            here.append(copy.deepcopy(data.draw(st.sampled_from(VALUES))))
        else:
            here[key] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
    only_spec_errors(spec, json.dumps(tree))


# --------------------------------------------------------------------------- speed


def test_loading_imports_nothing_heavy(spec: Path) -> None:
    program = (
        "import sys; from nsd.runner.spec.load import load_spec; load_spec(sys.argv[1]); "
        "print(sorted({'torch', 'transformers', 'trl', 'datasets', 'numpy', 'scipy', 'pyarrow', 'duckdb', 'rich'} "
        "& set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program, str(spec)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
