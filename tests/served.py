"""A real HTTP server with OpenAI's interface on 127.0.0.1, which says what it is told and fails where it is told.

    with Served(lambda prompt, seed: f"#### {seed}") as served:
        served.faults = lambda number, asked: Status(429, {"Retry-After": "0"}) if number == 3 else None
        ...
        served.asked, served.billed      # every request, and the tokens of every answer that was written

A prompt has as many tokens as words, and so has an answer. What is cut or hangs is billed, as real servers do.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[str, int], str]


@dataclass(frozen=True)
class Status:
    """An answer with another status."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass(frozen=True)
class Cut:
    """The connection ends in the middle of the answer."""


@dataclass(frozen=True)
class Reset:
    """The connection ends without an answer."""


@dataclass(frozen=True)
class Hang:
    """No answer until the server is stopped."""


@dataclass(frozen=True)
class Body:
    """A body as it is, with status 200."""

    text: str


Fault = Status | Cut | Reset | Hang | Body


@dataclass(frozen=True)
class Asked:
    """A request: its path, body and headers."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def prompt(self) -> str:
        """The prompt, of a chat the last message."""
        return str(self.body["prompt"] if "prompt" in self.body else self.body["messages"][-1]["content"])

    @property
    def place(self) -> tuple[str, float, int | None]:
        """Prompt, temperature and seed: which sample of which stage it is for."""
        return self.prompt, self.body["temperature"], self.body.get("seed")


@dataclass
class Billed:
    """Tokens of every answer that was written."""

    prompt: int = 0
    completion: int = 0


class Served:
    """The server. `stop` and `start` restart it at the same port; what it counted stays."""

    def __init__(self, say: Say, finish: str = "stop", **message: Any) -> None:
        self.say, self.finish, self.message = say, finish, message
        self.faults: Callable[[int, Asked], Fault | None] = lambda number, asked: None
        self.asked: list[Asked] = []
        self.answered: list[Asked] = []
        self.billed, self.unheard = Billed(), Billed()  # of whole answers, and of those that did not arrive
        self.busy = self.most_busy = 0
        self.port = 0
        self.lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    @property
    def base_url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, at the port of before where there was one."""
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening, and drop what hangs."""
        if self._server is not None:
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads, allow_reuse_address, request_queue_size, block_on_close = True, True, 128, False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the client dropped."""


def _handler(served: Served) -> type[BaseHTTPRequestHandler]:
    stopping = served.stopping  # of this start: a connection does not outlive it

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with served.lock:
                asked = Asked(self.path, json.loads(raw), dict(self.headers))
                served.asked.append(asked)
                number = len(served.asked)
                served.busy += 1
                served.most_busy = max(served.most_busy, served.busy)
            try:
                self._answer(served.faults(number, asked), asked)
            finally:
                with served.lock:
                    served.busy -= 1

        def _answer(self, fault: Fault | None, asked: Asked) -> None:
            if isinstance(fault, Status):
                self._send(fault.code, json.dumps(fault.body or {"error": {"message": "no"}}).encode(), fault.headers)
            elif isinstance(fault, Reset) or stopping.is_set():
                self.close_connection = True
            elif isinstance(fault, Body):
                self._send(200, fault.text.encode())
            else:
                self._say(fault, asked)

        def _say(self, fault: Fault | None, asked: Asked) -> None:
            chat = asked.path.endswith("/chat/completions")
            try:
                text = served.say(asked.prompt, asked.body.get("seed", -1))
            except Exception as error:  # whoever wrote the test hears of it, and no retry hides it
                self._send(400, json.dumps({"error": {"message": f"the test's own server: {error!r}"}}).encode())
                return
            tokens = {"prompt_tokens": len(asked.prompt.split()), "completion_tokens": len(text.split())}
            with served.lock:
                bill = served.billed if fault is None else served.unheard
                bill.prompt += tokens["prompt_tokens"]
                bill.completion += tokens["completion_tokens"]
                if fault is None:
                    served.answered.append(asked)
            said = {"message": {"content": text, **served.message}} if chat else {"text": text}
            choice = {"index": 0, "finish_reason": served.finish, **said}
            body = json.dumps({"model": asked.body["model"], "choices": [choice], "usage": tokens}).encode()
            if isinstance(fault, Hang):
                stopping.wait()
                self.close_connection = True
            elif isinstance(fault, Cut):
                self._send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
                self.close_connection = True
            else:
                self._send(200, body)

        def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    return Handler
