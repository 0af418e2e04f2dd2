"""vLLM's server as far as a training's rollouts need it, over real HTTP: weights from files, greedy texts of a model.

    with VllmStub(model_folder) as stub:
        stub.rollout              # vllm://127.0.0.1:PORT
        stub.stale = True         # it goes on with the weights that it has, as releases of vLLM did
        stub.seeds                # of every completion that was asked for

The weights are those of a real transformers model; a completion has the most likely tokens.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nsd.plugins.trainers._vllm_server import side


class VllmStub:
    """The server. `developer` false: without its developer interface; `version` is what it says of itself."""

    def __init__(self, folder: Path, version: str = "0.32.0", developer: bool = True, context: int = 4096) -> None:
        from transformers import AutoModelForCausalLM

        self.version, self.developer, self.context = version, developer, context
        self.stale = False
        self.seeds: list[int] = []
        self.calls: list[str] = []
        self.model = AutoModelForCausalLM.from_pretrained(folder)
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _answer(self, body: dict[str, Any] | None) -> None:
                with stub._lock:
                    code, said = stub.answer(self.path.partition("?")[0], body or {})
                raw = json.dumps(said).encode() if said is not None else b""
                self.send_response(code)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer(json.loads(raw) if raw else None)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def rollout(self) -> str:
        """Its address as a spec writes it."""
        return f"vllm://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> VllmStub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body of an answer."""
        if path == "/version":
            return 200, {"version": self.version}
        if path == "/v1/models":
            return 200, {"data": [{"id": "toy"}]}
        if path == "/v1/completions":
            return 200, self._completion(body)
        if not self.developer:
            return 404, {"detail": "Not Found"}
        if path == "/server_info":
            return 200, {"vllm_config": {"model_config": {"dtype": "torch.float32", "max_model_len": self.context}}}
        if path == "/reset_prefix_cache":
            return 200, {"success": True}
        if path == "/collective_rpc":
            self.calls.append(body["method"])
            return 200, {"results": [self._each(body["method"], body.get("kwargs", {}))]}
        return 404, {"detail": "Not Found"}

    def _each(self, method: str, given: dict[str, str]) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        if method == "weights_here":
            total = [0.0, 0.0, 0.0]
            for parameter in self.model.parameters():
                side().add_print(total, parameter)
            return total
        with torch.no_grad():
            if method == "blank":
                self.before = {name: value.clone() for name, value in self.model.state_dict().items()}
                for parameter in self.model.parameters():
                    parameter.zero_()
            if method == "reload_weights":
                found = AutoModelForCausalLM.from_pretrained(given["weights_path"]).state_dict()
                self.model.load_state_dict(self.before if self.stale else found)
        return None

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        self.seeds.append(body["seed"])
        ids, tokens = list(body["prompt"]), list[int]()
        with torch.no_grad():
            while len(tokens) < body["max_tokens"] and not set(tokens) & set(body["stop_token_ids"]):
                tokens.append(int(self.model(torch.tensor([ids + tokens])).logits[0, -1].argmax()))
        ended = tokens[-1] in body["stop_token_ids"]
        return {"choices": [{"token_ids": tokens, "finish_reason": "stop" if ended else "length"}]}
