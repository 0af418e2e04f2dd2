"""The `openai` engine against a real server on this machine: every sample accounted for, none twice, dollars right."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from asked_as_they_go import MOST, asked_for, asked_of
from nsd.plugins.api import Completion, Request, Sampling, StopReason
from nsd.plugins.engines import openai, openai_asking, openai_pace
from nsd.plugins.engines.openai import OpenAIEngine
from nsd.plugins.engines.openai_bodies import COSTS_MORE, most_prompt_tokens
from nsd.plugins.engines.openai_server import here
from nsd.plugins.errors import BudgetSpent, InputError, StageFailed
from nsd.plugins.metering import Meter, Usage
from nsd.plugins.seeds import stream
from served import Asked, Body, Cut, Fault, Hang, Reset, Served, Status

pytest.importorskip("httpx2")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_pace, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(openai_pace, "LONGEST_WAIT", 0.05)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(lambda prompt, seed: f"of {prompt} #### {seed}") as found:
        yield found


def engine(served: Served, **config: Any) -> OpenAIEngine:
    usual: dict[str, Any] = {"base_url": served.base_url, "model": "toy", "concurrency": 4}
    made = OpenAIEngine(OpenAIEngine.Config.model_validate({**usual, **config}))
    made.meter = Meter()
    return made


QUESTIONS = [Request(f"q{number}", f"what is {number} ?") for number in range(10)]
SAMPLING = Sampling(n=3, temperature=0.7, max_tokens=20)
PRICES = {"prompt": 2.0, "completion": 7.0}


def drawn(one: OpenAIEngine, requests: list[Request] = QUESTIONS, **more: Any) -> list[Completion]:
    found = one.generate(None, requests, more.pop("sampling", SAMPLING), 5, **more)
    return sorted((item for batch in found for item in batch), key=lambda item: (item.question_id, item.sample))


def wanted(n: int = SAMPLING.n) -> list[tuple[str, int]]:
    return [(request.question_id, sample) for request in QUESTIONS for sample in range(n)]


def places(found: list[Completion]) -> list[tuple[str, int]]:
    return [(item.question_id, item.sample) for item in found]


def wait_until(state: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not state():
        assert time.monotonic() < until
        time.sleep(0.01)


def usage(one: OpenAIEngine) -> Usage:
    assert one.meter is not None
    return one.meter.total


def test_each_sample_is_a_request_with_its_own_hashed_seed(served: Served) -> None:
    found = drawn(engine(served))
    assert places(found) == wanted()
    for item in found:
        seed = stream(5, item.question_id, item.sample) % 2**31
        prompt = f"what is {item.question_id[1:]} ?"
        assert item == Completion(item.question_id, item.sample, f"of {prompt} #### {seed}", 7, StopReason.STOP)
    assert {asked.body.get("n", 1) for asked in served.asked} == {1}
    assert max(Counter(asked.place for asked in served.asked).values()) == 1


def test_a_plain_prompt_is_completed_and_a_chat_is_answered(served: Served) -> None:
    chat = [Request("q", [{"role": "user", "content": "hello"}], chat_template_kwargs={"enable_thinking": False})]
    drawn(engine(served, extra_body={"top_k": -1}), chat, sampling=Sampling(1, 0.5, 9, top_p=0.9, stop=("\n",)))
    drawn(engine(served, send_seed=False, extra_body={"top_p": None}), [Request("q", "hello")])
    asked = served.asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "toy",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "stop": ["\n"],
        "seed": stream(5, "q", 0) % 2**31,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    plain = served.asked[1]
    assert plain.path == "/v1/completions"
    assert plain.body == {"model": "toy", "prompt": "hello", "max_tokens": 20, "temperature": 0.7}


def test_what_is_done_is_not_asked_again(served: Served) -> None:
    done = frozenset({("q3", 1), ("q4", 0)})
    requests = [*QUESTIONS[:5], Request("q5", "what is 5 ?", first=2), *QUESTIONS[6:]]
    found = drawn(engine(served), requests, done=done)
    assert places(found) == [place for place in wanted() if place not in {*done, ("q5", 0), ("q5", 1)}]
    assert len(served.asked) == len(found)


def test_no_more_requests_are_in_flight_than_allowed(served: Served) -> None:
    gate = threading.Barrier(3)

    def together(number: int, asked: Asked) -> Fault | None:
        gate.wait(60)  # passes only where three requests are in flight at once
        return None

    served.faults = together
    assert len(drawn(engine(served, concurrency=3))) == 30
    assert served.most_busy == 3


def test_nothing_is_asked_for_a_reader_that_takes_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "SHARD", 1)
    many = [Request(f"q{number}", "x") for number in range(200)]
    found = engine(served, concurrency=2).generate(None, many, Sampling(1, 1.0, 5), 5)
    first: list[Completion] = []
    while not first:
        first = next(found)
    at_most = 1 + 2 * (openai_asking.WAITING + 1)
    wait_until(lambda: len(served.asked) == at_most)
    time.sleep(0.2)
    assert (len(first), len(served.asked)) == (1, at_most)
    assert isinstance(found, Generator)
    found.close()
    assert "nsd-openai" not in {thread.name for thread in threading.enumerate()}


# --------------------------------------------------------------------------- faults

FAULTS: dict[str, Fault] = {
    "429": Status(429, {"Retry-After": "0.02"}),
    "429 with a date": Status(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "500": Status(500),
    "503": Status(503),
    "408": Status(408),
    "409": Status(409),
    "cut": Cut(),
    "reset": Reset(),
    "no JSON": Body("<html>busy</html>"),
    "no choices": Body('{"choices": []}'),
    "an error in a 200": Body('{"error": {"message": "overloaded", "code": 502}}'),
    "no finish": Body('{"choices": [{"text": "half", "finish_reason": null}]}'),
    "aborted": Body('{"choices": [{"text": "half", "finish_reason": "abort"}]}'),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_may_pass_is_tried_again_until_it_has_passed(served: Served, fault: Fault) -> None:
    served.faults = lambda number, asked: fault if number % 3 == 1 else None
    one = engine(served, retries=20, prices=PRICES)
    found = drawn(one)
    assert places(found) == wanted()
    assert not any(item.failed for item in found)
    assert Counter(asked.place for asked in served.answered) == Counter({asked.place: 1 for asked in served.answered})
    told = usage(one)
    assert (
        (told.prompt_tokens, told.completion_tokens) == (served.billed.prompt, served.billed.completion) == (120, 210)
    )
    assert told.usd == pytest.approx((120 * 2 + 210 * 7) / 1e6, abs=1e-12)
    assert (told.requests, told.retries) == (len(served.asked), len(served.asked) - 30)


def test_everything_at_once_and_a_restart_in_the_middle(served: Served) -> None:
    faults = list(FAULTS.values())
    restarted = threading.Event()

    def restart() -> None:
        served.stop()
        served.start()

    def mixed(number: int, asked: Asked) -> Fault | None:
        if number == 25 and not restarted.is_set():
            restarted.set()
            threading.Thread(target=restart).start()
            return Hang()
        return faults[number // 2 % len(faults)] if number % 2 else None

    served.faults = mixed
    one = engine(served, retries=60, prices=PRICES, concurrency=6)
    found = drawn(one)
    assert restarted.is_set()
    assert places(found) == wanted()
    assert not any(item.failed for item in found)
    told = usage(one)
    whole = (served.billed.prompt * 2 + served.billed.completion * 7) / 1e6
    unheard = (served.unheard.prompt * 2 + served.unheard.completion * 7) / 1e6
    # An answer that the restart cut off from its reader may count as whole on one side and unheard on the other.
    assert told.usd is not None and told.usd <= whole + 1e-12
    assert told.usd_at_most >= whole + unheard - 1e-12


def test_a_time_out_is_tried_again_and_its_price_is_unknown(served: Served) -> None:
    served.faults = lambda number, asked: Hang() if number == 1 else None
    one = engine(served, timeout=0.3, prices=PRICES, concurrency=1)
    (item,) = drawn(one, QUESTIONS[:1], sampling=Sampling(1, 1.0, 20))
    assert not item.failed
    told = usage(one)
    assert (told.requests, told.retries, told.unknown) == (2, 1, 1)
    assert told.usd == pytest.approx((4 * 2 + 7 * 7) / 1e6)
    assert told.unknown_usd >= (served.unheard.prompt * 2 + served.unheard.completion * 7) / 1e6 > 0


def test_an_unusable_answer_that_tells_its_tokens_is_paid(served: Served) -> None:
    bad = Body(json.dumps({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}))
    served.faults = lambda number, asked: bad if number == 1 else None
    one = engine(served, prices=PRICES, concurrency=1)
    drawn(one, QUESTIONS[:1], sampling=Sampling(1, 1.0, 20))
    assert usage(one).usd == pytest.approx(((1000 + 4) * 2 + (500 + 7) * 7) / 1e6)
    assert usage(one).unknown == 0


def test_after_the_last_try_the_completion_has_failed_and_says_why(served: Served) -> None:
    served.faults = lambda number, asked: Status(500) if "is 3 " in asked.prompt else None
    found = drawn(engine(served, retries=2))
    assert places(found) == wanted()
    failed = [item for item in found if item.failed]
    assert places(failed) == [("q3", 0), ("q3", 1), ("q3", 2)]
    assert {item.error for item in failed} == {"no answer in 3 tries: 500: no"}
    assert sum("is 3 " in asked.prompt for asked in served.asked) == 9


def test_a_server_that_stays_away_fails_the_stage_and_not_every_completion(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_asking, "FEWEST_LOST", 5)
    served.faults = lambda number, asked: Status(503) if number > 6 else None
    found, one = [], engine(served, retries=1, concurrency=1)
    with pytest.raises(StageFailed, match=r"5 requests in a row got no answer .* in 2 tries each \(503: no\)"):
        for batch in one.generate(None, QUESTIONS, SAMPLING, 5):
            found += batch
    assert places(found) == wanted()[: 6 + 5]  # in the order in which one after the other was asked
    assert [item.failed for item in found] == [False] * 6 + [True] * 5


def test_a_longer_wait_than_allowed_fails_the_stage(served: Served) -> None:
    served.faults = lambda number, asked: Status(429, {"Retry-After": "3600"})
    with pytest.raises(StageFailed, match=r"asks to wait 3600 s \(429: no\), and engine.max_wait is 600"):
        drawn(engine(served))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "does not take these fields"),
        (401, "api_key_env"),
        (403, "the key may not"),
        (404, "/v1"),
        (302, "engine"),
    ],
)
def test_what_nothing_betters_is_not_tried_again(served: Served, status: int, said: str) -> None:
    served.faults = lambda number, asked: Status(status) if number > 2 else None
    found: list[Completion] = []
    with pytest.raises(InputError, match=rf"refuses \({status}: no\): .*{said}"):
        for batch in engine(served, concurrency=1).generate(None, QUESTIONS, SAMPLING, 5):
            found += batch
    assert len(served.asked) == 3
    assert places(found) == [("q0", 0), ("q0", 1)]  # what was paid is kept


def test_an_account_without_money_is_not_waited_for(served: Served) -> None:
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    served.faults = lambda number, asked: Status(429, {}, body)
    with pytest.raises(InputError, match=r"exceeded your current quota.*has nothing left"):
        drawn(engine(served, concurrency=1))
    assert len(served.asked) == 1


LONG = {"error": {"message": "This model's maximum context length is 8 tokens", "code": "context_length_exceeded"}}


def test_a_prompt_that_is_too_long_fails_alone_and_is_asked_once(served: Served) -> None:
    served.faults = lambda number, asked: Status(400, {}, LONG) if "is 3 " in asked.prompt else None
    found = drawn(engine(served, concurrency=1))
    assert places([item for item in found if item.failed]) == [("q3", 0), ("q3", 1), ("q3", 2)]
    assert "maximum context length" in str(found[9].error)
    assert sum("is 3 " in asked.prompt for asked in served.asked) == 1


def test_a_refused_prompt_is_not_asked_again_in_a_later_round(served: Served) -> None:
    served.faults = lambda number, asked: Status(400, {}, LONG) if "is 3 " in asked.prompt else None
    one = engine(served, concurrency=1)
    for n in (1, 2, 3):
        found = drawn(
            one, [Request(r.question_id, r.prompt, first=n - 1) for r in QUESTIONS], sampling=replace(SAMPLING, n=n)
        )
        assert places([item for item in found if item.failed]) == [("q3", n - 1)]
    assert sum("is 3 " in asked.prompt for asked in served.asked) == 1
    one.meter = Meter()  # of another stage
    drawn(one, QUESTIONS[3:4], sampling=replace(SAMPLING, max_tokens=2))
    drawn(one, [Request("q3", "what is 3 now ?")])
    assert sum("is 3 " in asked.prompt for asked in served.asked) == 3


# --------------------------------------------------------------------------- what no server should say

DEEP = '{"a":' + "[" * 100_000


@pytest.mark.parametrize(
    "fault",
    [
        Body(DEEP),
        Status(502, {}, "x"),
        Status(502, {"Content-Type": "text/plain; charset=hex"}),
        Status(502, {"Content-Type": "text/plain; charset=no such"}),
        Status(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 +99999999"}),
        Body(json.dumps({"choices": [], "usage": {"prompt_tokens": 10**30, "completion_tokens": 10**30}})),
        Body('{"choices": [], "usage": {"prompt_tokens": ' + "9" * 5000 + "}}"),
        Body('{"choices": [], "error": ' + "[" * 900 + "]" * 900 + "}"),
    ],
    ids=["deep", "text", "charset hex", "charset unknown", "odd date", "10**30 tokens", "5000 digits", "900 lists"],
)
def test_a_mad_answer_is_tried_again(served: Served, fault: Fault) -> None:
    served.faults = lambda number, asked: fault if number == 1 else None
    found = drawn(engine(served, concurrency=1, prices=PRICES), QUESTIONS[:1])
    assert places(found) == wanted()[:3]
    assert not any(item.failed for item in found)


def test_more_tokens_than_can_be_are_not_told(served: Served) -> None:
    choice = {"text": "four", "finish_reason": "stop", "logprobs": {"token_logprobs": [10**400], "top_logprobs": [{}]}}
    said = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 10**30}}
    served.faults = lambda number, asked: Body(json.dumps(said))
    one = engine(served, logprobs=True, prices=PRICES)
    (item,) = drawn(one, QUESTIONS[:1], sampling=Sampling(1, 1.0, 5))
    assert (item.tokens, item.confidence, usage(one).unknown) == (0, None, 1)


def test_several_choices_are_an_error_and_not_asked_again(served: Served) -> None:
    choice = {"text": "four", "finish_reason": "stop"}
    served.faults = lambda number, asked: Body(json.dumps({"choices": [choice, choice]}))
    with pytest.raises(InputError, match="the answer has 2 choices, and one was asked for"):
        drawn(engine(served, concurrency=1))
    assert len(served.asked) == 1


def test_a_redirect_is_named(served: Served) -> None:
    served.faults = lambda number, asked: Status(307, {"Location": "https://me:pw@other.example/v2?key=x"})
    with pytest.raises(InputError, match=r"engine.base_url is elsewhere: https://other.example/v2$"):
        drawn(engine(served, concurrency=1))


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "nothing://127.0.0.1:9"), ("HTTP_PROXY", "foo://x"), ("SSL_CERT_FILE", "/no/such/file")],
)
def test_an_environment_that_allows_no_asking_is_named(
    served: Served, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for one in (name, name.lower()):
        monkeypatch.setenv(one, value)
    with pytest.raises(InputError, match=f"cannot be asked.*{name}"):
        drawn(engine(served))


def test_a_proxy_that_does_not_answer_is_named_without_its_password(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(lambda prompt, seed: "") as gone:
        port = gone.port
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setattr(openai_asking, "FEWEST_LOST", 2)
    elsewhere = engine(served, retries=0, concurrency=1, base_url="http://model.example/v1")
    with pytest.raises(StageFailed, match=rf"by the proxy http://127.0.0.1:{port} of the environment"):
        drawn(elsewhere)
    # This machine's own address is asked without it.
    assert places(drawn(engine(served))) == wanted()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("http://127.0.0.1:8000/v1", "127.0.0.1"),
        ("http://127.8.9.1/v1", "127.8.9.1"),
        ("http://[::1]:8000/v1", "::1"),
        ("http://localhost:8000/v1", "localhost"),
        ("http://10.0.0.1:8000/v1", None),
        ("https://localhost.example/v1", None),
    ],
)
def test_the_address_of_this_machine_is_known(address: str, host: str | None) -> None:
    assert here(address) == host


def test_what_is_in_flight_is_perhaps_paid_until_it_landed(served: Served) -> None:
    served.faults = lambda number, asked: Hang() if number == 2 else None
    one = engine(served, concurrency=1, prices=PRICES)
    found = one.generate(None, QUESTIONS[:2], Sampling(1, 0.7, 20), 5)
    assert one.meter is not None
    meter = one.meter
    thread = threading.Thread(target=lambda: list(found), daemon=True)
    thread.start()
    wait_until(lambda: len(served.asked) == 2 and meter.total.requests == 1)
    total, perhaps = meter.total, meter.perhaps
    assert (total.unknown, perhaps.unknown, perhaps.requests) == (0, 1, 2)
    assert perhaps.unknown_usd == pytest.approx((most_prompt_tokens(QUESTIONS[1].prompt) * 2 + 20 * 7) / 1e6)
    served.stop()
    wait_until(lambda: meter.perhaps.unknown_usd <= meter.total.unknown_usd)


def test_who_stops_gets_what_came_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsd.plugins.engines.openai.SHARD_SECONDS", 3600.0)
    served.faults = lambda number, asked: Hang() if number > 3 else None
    one = engine(served, concurrency=1)
    one.stopping = lambda: len(served.asked) > 3
    batches = one.generate(None, QUESTIONS, SAMPLING, 5)
    assert len(next(batch for batch in batches if batch)) == 3


def test_who_stops_while_the_first_text_is_taken_gets_all_that_came(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsd.plugins.engines.openai.LOOK_SECONDS", 0.0)  # nothing is waited for
    served.faults = lambda number, asked: Hang() if number > 3 else None
    one = engine(served, concurrency=1)
    batches = one.generate(None, QUESTIONS, SAMPLING, 5)

    def stopping() -> bool:  # asked for the first time when the first text is taken
        wait_until(lambda: len(served.asked) > 3)
        return True

    one.stopping = stopping
    assert len(next(batch for batch in batches if batch)) == 3


# --------------------------------------------------------------------------- pace


def test_calls_and_blocks_share_the_limit_of_a_minute(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_pace, "MINUTE", 1.0)
    begun = time.monotonic()
    one, other = (engine(served, requests_per_minute=3, timeout=timeout) for timeout in (60, 61))
    for which, question in zip((one, one, other, other), QUESTIONS, strict=False):
        drawn(which, [question], sampling=Sampling(1, 1.0, 5))
    assert time.monotonic() - begun >= 1.0  # the fourth is a minute after the first


def test_a_wait_that_the_server_asked_for_holds_later_calls(served: Served) -> None:
    served.faults = lambda number, asked: Status(429, {"Retry-After": "0.8"}) if number == 1 else None
    begun = time.monotonic()
    assert drawn(engine(served, retries=0), QUESTIONS[:1], sampling=Sampling(1, 1.0, 5))[0].failed
    assert not drawn(engine(served, retries=1), QUESTIONS[:1], sampling=Sampling(1, 1.0, 5))[0].failed
    assert time.monotonic() - begun >= 0.8


# --------------------------------------------------------------------------- money


@pytest.mark.parametrize(
    ("status", "unknown"), [(408, 1), (500, 1), (502, 1), (503, 1), (504, 1), (529, 1), (429, 0), (409, 0), (425, 0)]
)
def test_an_answer_lost_behind_the_server_may_have_been_billed(served: Served, status: int, unknown: int) -> None:
    served.faults = lambda number, asked: Status(status) if number == 1 else None
    one = engine(served, prices=PRICES, concurrency=1)
    drawn(one, QUESTIONS[:1], sampling=Sampling(1, 1.0, 20))
    assert usage(one).unknown == unknown
    assert (usage(one).unknown_usd >= (4 * 2 + 20 * 7) / 1e6) == bool(unknown)


def test_an_error_that_tells_its_tokens_is_not_unknown(served: Served) -> None:
    told = {"error": {"message": "no"}, "usage": {"prompt_tokens": 4, "completion_tokens": 9}}
    served.faults = lambda number, asked: Status(504, {}, told) if number == 1 else None
    one = engine(served, prices=PRICES, concurrency=1)
    drawn(one, QUESTIONS[:1], sampling=Sampling(1, 1.0, 20))
    assert (usage(one).unknown, usage(one).completion_tokens) == (0, 9 + 7)


def test_the_limit_stops_before_it_is_passed_and_more_money_continues(served: Served) -> None:
    one = engine(served, prices=PRICES, max_dollars=0.001, concurrency=4)
    found: list[Completion] = []
    with pytest.raises(BudgetSpent, match=r"of engine.max_dollars 0.001 is spent.*raise max_dollars"):
        for batch in one.generate(None, QUESTIONS, SAMPLING, 5):
            found += batch
    each, most = (4 * 2 + 7 * 7) / 1e6, (4 * 2 + 20 * 7) / 1e6
    paid = (served.billed.prompt * 2 + served.billed.completion * 7) / 1e6
    assert len(found) == len(served.asked)  # all that was paid is kept
    assert paid == pytest.approx(len(found) * each) == pytest.approx(usage(one).usd)
    assert 0.001 - most < paid <= 0.001
    more = engine(served, prices=PRICES, max_dollars=1.0)
    more.meter = one.meter
    rest = drawn(more, done=frozenset(places(found)))
    assert sorted(places(found) + places(rest)) == wanted()
    assert usage(more).usd == pytest.approx(30 * each)


def test_what_other_stages_spent_counts_against_the_limit(served: Served) -> None:
    one = engine(served, prices=PRICES, max_dollars=0.001)
    one.meter = Meter(elsewhere=0.0009)
    with pytest.raises(BudgetSpent):
        drawn(one)
    assert served.asked == []


# --------------------------------------------------------------------------- secrets


def test_the_key_is_sent_and_said_nowhere(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "sk-secret-1234\n")
    body = {"error": {"message": "Incorrect API key provided: sk-secret-1234"}}
    served.faults = lambda number, asked: Status(401, {}, body)
    with pytest.raises(InputError, match=r"Incorrect API key provided: \*\*\*") as raised:
        drawn(engine(served, api_key_env="TOY_KEY"))
    assert "secret" not in str(raised.value)
    assert served.asked[0].headers["Authorization"] == "Bearer sk-secret-1234"


KEY = "sk-secret-'1234567890"
PADDED = "x" * 285 + f" {KEY} " + "y" * 300  # the key is where a long text is cut


@pytest.mark.parametrize(
    "fault",
    [
        Status(401, {}, {"error": {"message": PADDED}}),
        Status(401, {}, {"error": {"of": PADDED}}),
        Status(400, {}, PADDED),
        Status(307, {"Location": f"http://else/{'x' * 280}/{KEY}?key={KEY}"}),
        Status(500, {}, {"detail": PADDED}),
        Body(json.dumps({"error": PADDED})),
        Body(json.dumps({"choices": [{"text": "", "finish_reason": "x" * 65 + KEY}], "model": KEY})),
        Body(json.dumps({"choices": [{"text": f"of {KEY}", "finish_reason": "stop"}], "model": KEY})),
    ],
    ids=["401", "401 in a dictionary", "400 as text", "307", "500", "an error in a 200", "finish", "text and model"],
)
def test_no_part_of_the_key_is_in_what_a_server_says(
    served: Served, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)
    served.faults = lambda number, asked: fault
    one, said = engine(served, api_key_env="TOY_KEY", retries=0), ""
    try:
        said = str(drawn(one, QUESTIONS[:1], sampling=Sampling(1, 1.0, 5)))
    except InputError as error:
        said = str(error)
    said += str(usage(one))
    assert said and not any(KEY[at : at + 5] in said for at in range(len(KEY) - 4))


def test_a_placeholder_of_a_key_stays_in_the_texts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "what")
    (item,) = drawn(engine(served, api_key_env="TOY_KEY"), QUESTIONS[:1], sampling=Sampling(1, 1.0, 5))
    assert item.text.startswith("of what is 0 ?")


def test_without_a_named_variable_no_key_is_sent(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1234")
    drawn(engine(served))
    assert not any("Authorization" in asked.headers for asked in served.asked)


@pytest.mark.parametrize("value", [None, "", "  ", "schlüssel"])
def test_a_variable_without_a_key_is_said_before_anything_is_asked(
    served: Served, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TOY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TOY_KEY", value)
    with pytest.raises(InputError, match="environment variable TOY_KEY"):
        engine(served, api_key_env="TOY_KEY").ready()


BAD_ADDRESSES = {
    "http://127.0.0.1:99999/v1": "port",
    "http://host:0/v1": "port",
    "http://host:abc/v1": "port",
    "http://host:-1/v1": "port",
    "http://exa mple/v1": "space",
    "http://host/v1\t": "space or a control",
    "http://a..b/v1": "name of a host",
    "http://" + "a" * 64 + ".org/v1": "name of a host",
    "http://999.1.1.1/v1": "name of a host",
    "http://host,other/v1": "name of a host",
    "http://[::1/v1": "IPv6",
    "http://host/" + "a" * 2000: "2000 characters",
}


@pytest.mark.parametrize(
    "address",
    ["http://[::1]:8000/v1", "http://10.0.0.1/v1", "https://my_host.internal.:443/v1", "https://bücher.example/v1"],
)
def test_an_address_that_can_be_is_taken(served: Served, address: str) -> None:
    one = engine(served, base_url=address)
    one._server().client()
    assert one.config.base_url == address


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"base_url": "localhost:8000"}, "http://"),
        ({"base_url": "https://me:secret@host/v1"}, "api_key_env"),
        ({"base_url": "https://host/v1?key=secret"}, "api_key_env"),
        ({"max_dollars": 1.0}, "prices"),
        ({"extra_body": {"n": 4}}, "given by nsd"),
        ({"extra_body": {"temperature": 0.3}}, "left out"),
        ({"api_key_env": "sk-1234"}, "pattern"),
        *(({"extra_body": {name: 4}}, "max_dollars does not limit") for name in sorted(COSTS_MORE)),
        *(({"base_url": address}, said) for address, said in BAD_ADDRESSES.items()),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(served: Served, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        engine(served, **config)


# --------------------------------------------------------------------------- votes that ask as they go


@pytest.mark.parametrize("concurrency", [1, 7])
def test_samples_asked_for_in_between_are_those_of_the_votes_whatever_is_in_flight(
    served: Served, concurrency: int
) -> None:
    sampling = Sampling(MOST, 1.0, 20)
    served.say = lambda prompt, seed: "x" * (seed % 7)
    full = {(one.question_id, one.sample): one for one in drawn(engine(served), sampling=sampling)}
    served.asked.clear()
    made = engine(served, concurrency=concurrency)
    found = [one for batch in made.generate_growing(None, QUESTIONS, sampling, 5, asked_of(QUESTIONS)) for one in batch]
    assert {(one.question_id, one.sample) for one in found} == asked_for(QUESTIONS, full)
    assert len(found) == len(served.asked) < len(full)


def test_growing_samples_end_where_the_server_ends_them(served: Served) -> None:
    served.faults = lambda number, asked: Status(401) if number > 6 else None
    with pytest.raises(InputError, match="401"):
        list(engine(served).generate_growing(None, QUESTIONS, Sampling(MOST, 1.0, 20), 5, asked_of(QUESTIONS)))
