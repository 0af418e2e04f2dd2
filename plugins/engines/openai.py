"""The `openai` engine: a model that somebody serves over OpenAI's HTTP interface (vLLM, SGLang, llama.cpp, hosted).

    engine:
      use: openai
      base_url: http://127.0.0.1:8000/v1
      model: Qwen/Qwen2.5-7B-Instruct
      api_key_env: MY_KEY                      # the NAME of an environment variable; the key itself stands nowhere
      prices: {prompt: 0.25, completion: 1.0}  # dollars for a million tokens
      max_dollars: 5

Chats go to /chat/completions, plain prompts to /completions, one request for each sample (n = 1) with the seed
`stream(seed, question, sample)` modulo 2**31: children of one request would have seeds in a row, so that a repeated
measurement would draw most of them again (in vLLM child j of seed s has s + j). Answers come in the order in which they
are written, and a shard is what came within a few seconds; a sample that is done is not asked again.

**What the digest holds**: the model's name, and what else shapes texts (`send_seed`, `extra_body`, `reasoning`,
`limit_field`, `logprobs`). The model behind a name is taken on trust: the same name at another `base_url` is the same
model, and a server that changes what it serves under a name is not seen by the digest. What the server called itself
is in the manifest (`served.answered_by`).

**Texts are not reproducible.** A server batches requests as they come, rounds accordingly, and may not look at the
seed; texts agree in distribution. The manifest says so (`served.reproducible: false`).

What is not sent is the server's default: vLLM takes top_k, top_p and min_p from the model's generation_config unless
it is started with `--generation-config vllm`, llama.cpp has top_k 40 and min_p 0.05 of its own. `extra_body: {top_k:
-1, min_p: 0}` (llama.cpp: `top_k: 0`) leaves all tokens in.

Dollars are `usage` times `prices`, those of answers that could not be used included. An answer that tells no tokens
(cut, timed out) is counted at its most beside them, as unknown dollars. `max_dollars` is for all stages of the spec
that ask by the same block; a request that could pass it waits for what is in flight to tell its cost, and is not sent
if it still could. Limits: discounts for cached prompts are not known here; a prompt is taken to have at most one token
a byte; two commands that run at once do not see each other's last requests.

Log-probabilities are asked for with `logprobs: true`: an answer that names the 20 most likely tokens at each place has
confidences as those of `hf` (OpenAI's own servers name 20 for chats, 5 for completions; vLLM 20), any other has none.
A thinking model's `reasoning_content` is left out of the text (`reasoning: drop`), where its tokens count and cost all
the same, or stands before the answer between <think> tags (`keep`), as a model without a parser writes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from nsd.plugins.api import (
    Completion,
    Engine,
    GrowingSamples,
    ModelRef,
    OutputNeutral,
    PluginConfig,
    Prompted,
    Request,
    Sampling,
)
from nsd.plugins.engines.asking import check
from nsd.plugins.engines.openai_asking import Asking, Known, Limit, Prices
from nsd.plugins.engines.openai_bodies import COSTS_MORE, GIVEN, MAY_BE_LEFT_OUT, Form, Tokens, likely_prompt_tokens
from nsd.plugins.engines.openai_pace import record_of
from nsd.plugins.engines.openai_server import Secret, Server, checked_address
from nsd.plugins.engines.openai_tries import Wanted
from nsd.plugins.errors import InputError
from nsd.plugins.metering import Meter, Usage
from nsd.plugins.registry import plugin

SHARD = 256  # completions of a yielded batch at most
SHARD_SECONDS = 5.0  # that a finished completion waits for others at most
LOOK_SECONDS = 0.5  # after which whoever draws may look whether to stop


class PricesConfig(PluginConfig):
    """What the server bills."""

    prompt: float = Field(ge=0, allow_inf_nan=False, description="Dollars for a million prompt tokens.")
    completion: float = Field(ge=0, allow_inf_nan=False, description="Dollars for a million generated tokens.")


@plugin("engine", "openai")
class OpenAIEngine(Engine):
    """A served model. Raises InputError for what the server refuses for good, BudgetSpent where max_dollars ends it."""

    needs_model: ClassVar[bool] = False
    served: ClassVar[bool] = True
    grows: ClassVar[bool] = True
    extra: ClassVar[str | None] = "openai"

    class Config(PluginConfig):
        base_url: Annotated[str, OutputNeutral()] = Field(description="Where the server is, with its /v1.")
        model: str = Field(min_length=1, description="The name under which it serves the model.")
        api_key_env: Annotated[str | None, OutputNeutral()] = Field(
            default=None,
            pattern="^[A-Za-z_][A-Za-z0-9_]*$",
            description="The environment variable that holds the key, by its name; null: none is sent.",
        )
        send_seed: bool = Field(default=True, description="Send each sample's seed; false where a server refuses it.")
        extra_body: dict[str, Any] = Field(
            default={}, description="Further fields of every request; null leaves out one of nsd's own, as top_p."
        )
        limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
            default="max_tokens", description="What the server calls the limit of generated tokens."
        )
        reasoning: Literal["drop", "keep"] = Field(
            default="drop", description="A thinking model's reasoning_content: no part of the text, or in <think> tags."
        )
        logprobs: bool = Field(default=False, description="Ask for log-probabilities, and keep confidences.")
        concurrency: Annotated[int, OutputNeutral()] = Field(
            default=32, ge=1, le=4096, description="Requests in flight at once."
        )
        timeout: Annotated[float, OutputNeutral()] = Field(
            default=600.0, gt=0, allow_inf_nan=False, description="Seconds for one answer."
        )
        retries: Annotated[int, OutputNeutral()] = Field(
            default=10, ge=0, description="Further tries for one sample; waits double from half a second to a minute."
        )
        max_wait: Annotated[float, OutputNeutral()] = Field(
            default=600.0, gt=0, allow_inf_nan=False, description="The longest Retry-After that is waited for, seconds."
        )
        requests_per_minute: Annotated[int | None, OutputNeutral()] = Field(
            default=None, ge=1, description="The server's limit; null: none."
        )
        tokens_per_minute: Annotated[int | None, OutputNeutral()] = Field(
            default=None, ge=1, description="The server's limit for prompts and answers together; null: none."
        )
        prices: Annotated[PricesConfig | None, OutputNeutral()] = Field(
            default=None, description="Dollars for a million tokens; null: not known, or free."
        )
        max_dollars: Annotated[float | None, OutputNeutral()] = Field(
            default=None,
            gt=0,
            allow_inf_nan=False,
            description="Stop before the stages of this spec that use this block have cost more; needs prices.",
        )

        @field_validator("base_url")
        @classmethod
        def _an_address(cls, given: str) -> str:
            return checked_address(given)

        @field_validator("extra_body")
        @classmethod
        def _nobody_elses(cls, given: dict[str, Any]) -> dict[str, Any]:
            for name, value in given.items():
                if name in GIVEN:
                    raise ValueError(f"{name!r} is given by nsd itself")
                if name in COSTS_MORE and value is not None:
                    raise ValueError(f"{name!r} makes answers that nsd does not count, and max_dollars does not limit")
                if name in MAY_BE_LEFT_OUT - {"top_k"} and value is not None:
                    raise ValueError(f"{name!r} is given by nsd itself, and can only be left out (null)")
            return given

        @model_validator(mode="after")
        def _priced(self) -> OpenAIEngine.Config:
            if self.max_dollars is not None and self.prices is None:
                raise ValueError("'max_dollars' needs 'prices': {prompt, completion}, in dollars for a million tokens")
            return self

    config: Config
    _known: tuple[Meter, Known] | None = None  # of the stage whose meter this is

    def ready(self) -> None:
        """Raise InputError where the key is not there. The server is not asked: it may be started later."""
        self._key()

    def at_most(self, prompts: Sequence[Prompted], samples: int, max_tokens: int) -> Usage:
        """What so many samples of each prompt take: prompt tokens at four characters each, every answer at its limit.

        `usd` is None without prices.
        """
        prompt = samples * sum(likely_prompt_tokens(one) for one in prompts)
        completion = samples * len(prompts) * max_tokens
        prices = self._limit().prices
        usd = None if prices is None else prices.of(Tokens(prompt, completion))
        return Usage(samples * len(prompts), 0, prompt, completion, usd)

    def generate(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        done: AbstractSet[tuple[str, int]] = frozenset(),
    ) -> Iterator[list[Completion]]:
        """See Engine.generate. Batches are what came meanwhile, and empty where nothing did. `model` is not used."""
        check(requests, sampling, "openai")
        wanted = (
            Wanted(request, sample)
            for request in requests
            for sample in range(request.first, sampling.n)
            if (request.question_id, sample) not in done
        )
        yield from self._batches(self._asking(wanted, sampling, seed))

    def generate_growing(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        samples: GrowingSamples,
    ) -> Iterator[list[Completion]]:
        """See Engine.generate_growing. Batches are as those of `generate`; `model` is not used."""
        check(requests, sampling, "openai")
        by_id = {request.question_id: request for request in requests}
        first = [Wanted(one, sample) for one in requests for sample in samples.first(one.question_id)]
        if not first:
            return
        owed = len(first)
        asking = self._asking(iter(first), sampling, seed, grows=True)

        def told(completion: Completion) -> None:
            nonlocal owed
            name = completion.question_id
            further = [Wanted(by_id[name], sample) for sample in samples.further(completion)]
            owed += len(further) - 1
            asking.ask(further)
            if owed == 0:
                asking.enough()

        yield from self._batches(asking, told)

    def _batches(
        self, asking: Asking, told: Callable[[Completion], None] = lambda one: None
    ) -> Iterator[list[Completion]]:
        """What comes, until nothing is asked for any more; each completion is `told` at once."""
        asking.start()
        try:
            while asking.running:
                yield _batch(asking, self.stopping, told)
        finally:
            asking.stop()
        asking.finish()

    def _asking(self, wanted: Iterator[Wanted], sampling: Sampling, seed: int, grows: bool = False) -> Asking:
        if self.meter is None:
            self.meter = Meter()
        if self._known is None or self._known[0] is not self.meter:
            self._known = self.meter, Known()
        server = self._server()
        record = record_of(server.base_url, self.config.model, server.secret.key)
        form, known = self._form(), self._known[1]
        return Asking(wanted, form, sampling, seed, server, self._limit(), self.meter, known, record, grows)

    def _form(self) -> Form:
        said = self.config
        extra = said.extra_body
        return Form(said.model, said.send_seed, said.limit_field, said.logprobs, said.reasoning, extra)

    def _server(self) -> Server:
        said = self.config
        return Server(
            base_url=said.base_url,
            secret=Secret(self._key()),
            concurrency=said.concurrency,
            timeout=said.timeout,
            retries=said.retries,
            max_wait=said.max_wait,
            requests_per_minute=said.requests_per_minute,
            tokens_per_minute=said.tokens_per_minute,
        )

    def _limit(self) -> Limit:
        prices = self.config.prices
        return Limit(None if prices is None else Prices(prices.prompt, prices.completion), self.config.max_dollars)

    def _key(self) -> str | None:
        name = self.config.api_key_env
        if name is None:
            return None
        key = os.environ.get(name, "").strip()
        if not key:
            raise InputError(
                f"engine openai: the environment variable {name} (engine.api_key_env) holds no key: set it"
            )
        if not (key.isascii() and key.isprintable()):
            raise InputError(f"engine openai: what the environment variable {name} holds cannot be a key")
        return key


def _batch(asking: Asking, stopping: Callable[[], bool], told: Callable[[Completion], None]) -> list[Completion]:
    """What comes within a few seconds of the first one, each `told` at once; nothing where none comes for a moment.

    Whoever is stopping gets all that has come: no other batch may be asked for, and what is in none is paid again.
    """
    first = asking.take(LOOK_SECONDS)
    if first is None:
        return []
    told(first)
    batch, until = [first], time.monotonic() + SHARD_SECONDS
    while asking.running:
        over = stopping()
        left = 0.0 if over else min(until - time.monotonic(), LOOK_SECONDS)
        if not over and (len(batch) >= SHARD or left <= 0):
            break
        if (found := asking.take(left)) is not None:
            told(found)
            batch.append(found)
        elif over:
            break
    return batch
