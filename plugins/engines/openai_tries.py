"""One try of a request to a server, and what the answer to it means: the inside of `openai_asking`.

    tried = await Tries(server, form, sampling).send(client, wanted, body)

A try ends in one of four ways (`Tried.found`): an answer; `Again`, which another try may better (408, 409, 425, 429,
5xx, a lost connection, a time-out, a body that is cut or cannot be read); `Failed`, a refusal of the prompt (too long,
filtered); or nothing, where `Tried.ends` says why no more can be asked (401, 404, ...).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsd.plugins.api import Request, Sampling
from nsd.plugins.engines.openai_bodies import (
    LONGEST_SAID,
    Answer,
    Form,
    Invalid,
    Tokens,
    path_of,
    read_answer,
    refusal,
    tokens_of,
)
from nsd.plugins.engines.openai_pace import retry_after
from nsd.plugins.engines.openai_server import Server, without_password
from nsd.plugins.errors import InputError, NsdError

if TYPE_CHECKING:
    import httpx2

WAY_OUT = "change the engine block, or the server's settings"
WAYS_OUT = {
    400: "the server does not take these fields; engine.extra_body leaves one out with `NAME: null`",
    401: "give engine.api_key_env the name of the environment variable that holds the key",
    403: "the key may not do this; look at engine.api_key_env and engine.model",
    404: "look at engine.model, and at engine.base_url, which ends in /v1 for most servers",
    422: "the server does not take these fields; engine.extra_body leaves one out with `NAME: null`",
    429: "the account has nothing left; pay, or take another, and the same command continues",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One sample of one prompt."""

    request: Request
    sample: int


@dataclass(frozen=True, slots=True)
class Again:
    """A try that another one may better; `after` are seconds that the server named."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A refusal of the prompt itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tried:
    """How a try ended (None: all asking `ends`), the tokens that it told, and whether others may have been billed."""

    found: Answer | Again | Failed | None
    tokens: Tokens | None = None
    unknown: bool = False
    ends: NsdError | None = None


@dataclass(frozen=True, slots=True)
class Tries:
    """Sends requests of one form to one server."""

    server: Server
    form: Form
    sampling: Sampling

    async def send(self, client: httpx2.AsyncClient, wanted: Wanted, body: dict[str, Any]) -> Tried:
        """Send a request, and read what comes."""
        import httpx2

        try:
            async with asyncio.timeout(self.server.timeout):
                response = await client.post(path_of(wanted.request), json=body)
        except TimeoutError:
            return Tried(Again(f"no answer within {self.server.timeout:g} s"), unknown=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            return Tried(Again(self._said(error)))
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL, OverflowError) as error:
            return Tried(
                None, ends=InputError(f"engine openai: {self.server.name} cannot be asked: {self._said(error)}")
            )
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            return Tried(Again(self._said(error)), unknown=True)
        if response.status_code == 200:
            return self._read(response, wanted)
        return self._refused_by(response)

    def _read(self, response: httpx2.Response, wanted: Wanted) -> Tried:
        try:
            found = json.loads(response.content)
        except (ValueError, RecursionError):
            return Tried(Again("the answer is no whole JSON"), unknown=True)
        try:
            answer = read_answer(found, self.form, wanted.request, wanted.sample, self.sampling, self.server.secret)
        except Invalid as invalid:
            if invalid.lasting:
                ends = InputError(f"engine openai: {self.server.name}: {invalid}: {WAY_OUT}")
                return Tried(None, invalid.tokens, invalid.tokens is None, ends)
            return Tried(Again(str(invalid)), invalid.tokens, unknown=invalid.tokens is None)
        return Tried(answer, answer.tokens, unknown=answer.tokens is None)

    def _refused_by(self, response: httpx2.Response) -> Tried:
        """What an answer that is none means; the tokens that it tells are billed."""
        try:
            found = json.loads(response.content)
        except (ValueError, RecursionError):
            found = response.content.decode("utf-8", "replace")  # whatever encoding it says it has
        refused, tokens = refusal(response.status_code, found, self.server.secret), tokens_of(found)
        reason = refused.reason
        if refused.again:
            unknown = refused.worked and tokens is None
            return Tried(Again(reason, retry_after(response.headers.get("Retry-After"))), tokens, unknown)
        if refused.question:
            return Tried(Failed(reason), tokens)
        way_out = WAYS_OUT.get(response.status_code, WAY_OUT)
        if response.is_redirect:
            way_out = f"engine.base_url is elsewhere: {self._redirected(response)}"
        ends = InputError(f"engine openai: {self.server.name} refuses ({reason}): {way_out}")
        return Tried(None, tokens, ends=ends)

    def _redirected(self, response: httpx2.Response) -> str:
        """Where an answer says that the server is, without a query, which may hold a secret."""
        there = without_password(self.server.secret.out_of(response.headers.get("Location", "")))
        return there.partition("?")[0][:LONGEST_SAID] or "the server does not say where"

    def _said(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        return self.server.secret.out_of(f"{type(error).__name__}: {text}" if text else type(error).__name__)
