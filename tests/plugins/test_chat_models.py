"""Chats of the families that people train, through every path: the prompt, SFT, GRPO, saved and drawn from again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from chat_models import FAMILIES, make_chat_model
from nsd.plugins.api import Completion, ModelRef, Prompt, Request, Sampling, StopReason
from nsd.plugins.chat import prompt_ids, training_ids, turn_end
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.errors import InputError
from nsd.plugins.models import load_model, load_tokenizer
from nsd.plugins.trainers import _grpo, _setup
from training_job import Events, job, train

pytestmark = pytest.mark.slow

CHAT = [{"role": "user", "content": "Add: 0+0?"}]
NO_THOUGHT = {"enable_thinking": False}
CLOSED = "<think>\n\n</think>\n\n"  # how Qwen3's template answers enable_thinking: false
ONE_STEP = {"steps": 1, "prompts_per_step": 2, "num_generations": 2, "max_tokens": 6}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_chat_model(name, tmp_path_factory.mktemp("models") / name) for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(name: str, folders: dict[str, Path]) -> Path:
    return folders[name]


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(str(folder))


def drawn(folder: Path, sampling: Sampling, **more: Any) -> list[Completion]:
    engine = HfEngine(HfEngine.Config(device="cpu"))
    requests = [Request("q", CHAT, chat_template_kwargs=more.get("kwargs"))]
    found = [one for batch in engine.generate(ModelRef(str(folder)), requests, sampling, 3) for one in batch]
    engine.close()
    return found


# --------------------------------------------------------------------------- prompts


def test_a_chat_is_rendered_as_the_family_documents_it(name: str, tokenizer: Any) -> None:
    assert tokenizer.decode(prompt_ids(tokenizer, CHAT)) == FAMILIES[name].asked


def test_the_start_of_a_text_stands_once(name: str, tokenizer: Any) -> None:
    family = FAMILIES[name]
    start = tokenizer.convert_tokens_to_ids(family.bos) if family.bos else None
    ids, _ = training_ids(tokenizer, CHAT, "0", None)
    assert (prompt_ids(tokenizer, CHAT).count(start), ids[1:-1].count(start)) == (1 if family.bos else 0, 0)
    assert prompt_ids(tokenizer, "Add: 0+0?").count(start) == (1 if family.bos_added else 0)


def test_template_values_reach_the_template_that_knows_them_and_no_other(name: str, tokenizer: Any) -> None:
    found = tokenizer.decode(prompt_ids(tokenizer, CHAT, NO_THOUGHT))
    assert found == FAMILIES[name].asked + (CLOSED if name == "qwen3" else "")


def test_the_end_of_a_turn_is_the_templates(name: str, tokenizer: Any) -> None:
    assert tokenizer.decode(turn_end(tokenizer)) == FAMILIES[name].end


def test_what_is_trained_on_is_the_prompt_the_target_and_the_end(name: str, tokenizer: Any) -> None:
    # As the model would have drawn it: blanks in front stay, and Qwen3's template puts no thought in between.
    ids, prompt = training_ids(tokenizer, CHAT, "  that makes 0", turn_end(tokenizer), NO_THOUGHT)
    assert ids[:prompt] == prompt_ids(tokenizer, CHAT, NO_THOUGHT)
    assert tokenizer.decode(ids[prompt:]) == "  that makes 0" + FAMILIES[name].end


def test_a_template_without_an_end_gets_the_tokenizers(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["olmo2"]))
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    assert turn_end(tokenizer) is None
    ids, _ = training_ids(tokenizer, CHAT, "0", turn_end(tokenizer))
    assert tokenizer.decode(ids) == "user: Add: 0+0?\n0<|endoftext|>"


def test_a_template_that_refuses_the_turns_has_no_known_end(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["olmo2"]))
    tokenizer.chat_template = "{{ raise_exception('no chats today') }}"
    assert turn_end(tokenizer) is None


def test_a_chat_needs_a_template(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["qwen3"]))
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"no chat template: set prompt.chat to false"):
        prompt_ids(tokenizer, CHAT)
    assert turn_end(tokenizer) is None


@pytest.mark.parametrize("taken", ["tokenize", "tools", "add_generation_prompt", "chat_template"])
def test_what_the_template_is_given_anyway_cannot_be_set(taken: str) -> None:
    with pytest.raises(ValidationError, match=f"'{taken}' is given to the template by nsd itself"):
        Prompt(chat=True, chat_template_kwargs={taken: True})


# --------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("kwargs", [None, NO_THOUGHT])
def test_the_engine_asks_what_is_trained_on(
    tokenizer: Any, folder: Path, kwargs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nsd.plugins.engines.hf_prefill import Queue

    asked: list[list[int]] = []
    inner = Queue._prefill

    def listening(queue: Queue, prompts: Any) -> Any:
        asked.extend(prompts)
        return inner(queue, prompts)

    monkeypatch.setattr(Queue, "_prefill", listening)
    drawn(folder, Sampling(1, 0.0, 2), kwargs=kwargs)
    ids, prompt = training_ids(tokenizer, CHAT, "0", None, kwargs)
    assert asked == [ids[:prompt]]


# --------------------------------------------------------------------------- sft


def nll(folder: Path, ids: list[int], first: int) -> list[float]:
    """Cross-entropy of the tokens from `first` on, from the model's logits by the formula, in float64."""
    import torch

    model, _ = load_model(ModelRef(str(folder)), device="cpu")
    logits = model(torch.tensor([ids])).logits[0].double().detach().numpy()
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return [-float(log_probs[place - 1, ids[place]]) for place in range(first, len(ids))]


@pytest.mark.parametrize("chat", [True, False])
def test_the_loss_is_over_the_answer_and_its_end_alone(
    name: str, folder: Path, tokenizer: Any, tmp_path: Path, chat: bool
) -> None:
    # Three texts of different lengths in one batch: were the padding in the loss, the mean would be another, and so it
    # would where it is left out by its id and the end token pads.
    events = Events()
    prompt = Prompt(template="Add: {question}", chat=chat, chat_template_kwargs=NO_THOUGHT if chat else None)
    made = job(tmp_path, folder, events, count=3, chat=chat, prompt=prompt)
    train("sft", {"batch_size": 3, "epochs": 1}, made)
    losses: list[float] = []
    for example in made.examples:
        if chat:
            asked = FAMILIES[name].asked.replace("0+0?", example.question.text) + (CLOSED if name == "qwen3" else "")
            answer = tokenizer(f"{example.target}{FAMILIES[name].end}", add_special_tokens=False)["input_ids"]
            ids = tokenizer(asked, add_special_tokens=False)["input_ids"] + answer
        else:
            ids = tokenizer(f"{example.prompt} {example.target}{FAMILIES[name].eos}")["input_ids"]
            answer = ids[len(tokenizer(example.prompt)["input_ids"]) :]
        losses += nll(folder, ids, len(ids) - len(answer))
    assert events.curve("loss")[0] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_loss_full_is_over_the_whole_chat(folders: dict[str, Path], tmp_path: Path) -> None:
    events, folder = Events(), folders["llama3"]
    made = job(tmp_path, folder, events, count=2, chat=True)
    train("sft", {"batch_size": 2, "epochs": 1, "loss": "full"}, made)
    tokenizer = load_tokenizer(str(folder))
    losses: list[float] = []
    for example in made.examples:
        losses += nll(folder, training_ids(tokenizer, example.prompt, str(example.target), None)[0], 1)  # type: ignore[arg-type]
    assert events.curve("loss")[0] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.slow
def test_a_model_that_is_taught_an_answer_gives_it_and_ends_by_itself(name: str, folder: Path, tmp_path: Path) -> None:
    made = job(tmp_path, folder, Events(), count=1, chat=True)
    train("sft", {"batch_size": 1, "epochs": 40, "learning_rate": 5e-3}, made)
    [one] = drawn(tmp_path / "weights", Sampling(1, 0.0, 40))
    assert (one.text, one.stop_reason) == ("that makes 0", StopReason.STOP)


def test_options_that_change_the_chat_of_training_alone_are_refused() -> None:
    from nsd.plugins.registry import find

    for trainer, field, way in (
        ("sft", "assistant_only_loss", "use trainer.loss"),
        ("sft", "chat_template_path", "the model's own template"),
        ("grpo", "chat_template_kwargs", "use prompt.chat_template_kwargs"),
    ):
        with pytest.raises(ValidationError, match=way):
            find("trainer", trainer).Config.model_validate({"trl": {field: None}})


# --------------------------------------------------------------------------- grpo


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The TRL trainers that were built."""
    built: list[Any] = []
    inner = _setup.build

    def build(*args: Any, **parts: Any) -> Any:
        built.append(inner(*args, **parts))
        return built[-1]

    monkeypatch.setattr(_setup, "build", build)
    yield built
    built.clear()


def test_grpo_asks_what_is_sampled_from_and_ends_where_sampling_does(
    name: str, folder: Path, tokenizer: Any, tmp_path: Path, trainers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rollouts: list[_grpo.TrlRollouts] = []
    inner = _grpo.TrlRollouts.__init__

    def kept(self: Any, *args: Any) -> None:
        inner(self, *args)
        rollouts.append(self)

    monkeypatch.setattr(_grpo.TrlRollouts, "__init__", kept)
    prompt = Prompt(template="Add: {question}", chat=True, chat_template_kwargs=NO_THOUGHT)
    made = job(tmp_path, folder, Events(), count=2, chat=True, prompt=prompt)
    train("grpo", {**ONE_STEP, "rewards": ["test_share_of_vowels"]}, made)
    asked, *_ = trainers[0]._tokenize_prompts([example.prompt for example in made.examples])
    assert asked == [prompt_ids(tokenizer, example.prompt, NO_THOUGHT) for example in made.examples]
    family = FAMILIES[name]
    ends = {tokenizer.convert_tokens_to_ids(token) for token in (*family.ends, family.eos, family.end)}
    assert rollouts[0].end_tokens == ends
    saved = json.loads((tmp_path / "weights" / "generation_config.json").read_text())["eos_token_id"]
    assert set(saved) == ends
    found = drawn(tmp_path / "weights", Sampling(2, 1.0, 4), kwargs=NO_THOUGHT)
    assert len(found) == 2 and not any(one.failed for one in found)
