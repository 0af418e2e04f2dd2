"""What runs in vLLM's own Python: it loads models, draws rows and says how each ended. nsd is not installed there.

Lines of JSON come by standard input and go out by the file descriptor that the first argument names:

    {"do": "load", "engine": {vLLM's arguments}, "weights": PATH,
     "stamp": whatever changes with the files}                     {"loaded": {"versions", "weights", "known", "rows"}}
    {"do": "draw", "prompts", "rows", "sampling", "adapter",
     "grows": whether rows may follow}                             {"drawn": [...]} many times, then {"whole": N}
    {"do": "more", "rows"}, {"do": "enough"}                       while such a drawing goes on: rows to draw before the
                                                                   others, and that no more will follow
    {"do": "sleep"}                                                {"asleep": true, or false where vLLM cannot}

Whatever goes wrong is said as {"failed": text, "memory": bool}. The process ends, with all that it has started, when
its standard input does: whoever asked is gone then.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from queue import Empty, Queue
from typing import Any

ROWS_WAITING = 4  # times as many rows as run at once are handed to vLLM, so that its queue never runs dry
BLOCK_SECONDS = 2.0  # between two messages about rows that have ended
ROUNDING = 1e-6  # two prints of the same weights are this near, in parts of their size
MOST_LIKELY = 20  # tokens whose log-probabilities make a token's confidence, as in nsd's plugins/confidence.py


class Weights:
    """Methods for vLLM's workers: what is in the memory of each."""

    model_runner: Any  # the worker's, to which vLLM adds this class

    def weights_here(self) -> list[float]:
        """The print of all parameters of this worker (see `add_print`)."""

        total = [0.0, 0.0, 0.0]
        seen: set[int] = set()  # an embedding that is the head too counts once
        for module in self.model_runner.get_model().modules():
            for name, parameter in module.named_parameters(recurse=False):
                if "lora" not in name and parameter.numel() and id(parameter) not in seen:
                    seen.add(id(parameter))
                    add_print(total, parameter)
            if hasattr(module, "cpu_linear"):
                add_held(total, module)
        return total

    def blank(self) -> None:
        """Throw the weights away, so that those that are put in next cannot be taken for them."""
        for module in self.model_runner.get_model().modules():
            for name, parameter in module.named_parameters(recurse=False):
                if "lora" not in name:
                    parameter.data.zero_()
            if hasattr(module, "cpu_linear"):
                module.cpu_linear = _nothing

    def renew(self) -> None:
        """Have the CPU build make its own forms of matrices anew: it leaves that of a head, when weights are put in."""
        for module in self.model_runner.get_model().modules():
            weight = module._parameters.get("weight")
            if hasattr(module, "cpu_linear") and weight is not None and weight.numel():
                module.quant_method.process_weights_after_loading(module)


def _nothing(x: Any, weight: Any, bias: Any) -> Any:
    """What a matrix of the CPU build gives that holds no weights."""
    return x.new_zeros(*x.shape[:-1], 1)


def add_held(total: list[float], module: Any) -> None:
    """Add the print of the form that the CPU build computes with, less that of the parameter where it has kept both.

    Often it keeps that form alone, which can only be asked for products. Where both are there one may be stale, and the
    difference, else zero, then tells it.
    """
    import torch

    weight = module._parameters.get("weight")  # of its own: what wraps a module shows that one's
    if weight is None or weight.ndim > 2:
        return
    alone = not weight.numel()
    size = module.input_size_per_partition if alone else weight.shape[1]
    both = directions(size).to(weight.dtype)
    with torch.inference_mode():
        held = module.quant_method.apply(module, both, None).double()
        kept = 0.0 if alone else (both.double() @ weight.double().T)
        for place, value in enumerate((held - kept).sum(1).tolist()):
            total[place] += value
        total[2] += float(held.abs().sum()) if alone else 0.0


def directions(size: int) -> Any:
    """Two fixed vectors of that size, of numbers that every type of weights has: [2, size], float32."""
    import torch

    steps = torch.arange(size, dtype=torch.float64)
    both = torch.stack([torch.cos(1.7 * steps + 0.3), torch.cos(2.9 * steps + 1.1)])
    return (both * 128).round().div(128).float()


def add_print(total: list[float], tensor: Any) -> None:
    """Add a tensor's print to [first, second, size]: sums of its products with two directions, and of their magnitudes.

    A print of matrices that lie one above the other, as vLLM keeps query, key and value, is the sum of their prints.
    """
    import torch

    rows = tensor.detach().reshape(-1, tensor.shape[-1])
    both = directions(rows.shape[1]).to(device=rows.device, dtype=torch.float64)
    for part in rows.split(max(1, (1 << 24) // rows.shape[1])):  # a whole matrix in float64 may not fit
        product = part.to(torch.float64) @ both.T
        for place, value in enumerate((*product.sum(0).tolist(), float(product.abs().sum()))):
            total[place] += value


def print_of(folder: Path, dtype: Any) -> list[float] | None:
    """The print of a worker that holds just the weights of these files; None where there are no such files."""
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    tied = bool(config.get("tie_word_embeddings", config.get("text_config", {}).get("tie_word_embeddings", False)))
    files = sorted(folder.glob("*.safetensors"))
    total = [0.0, 0.0, 0.0]
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if not (tied and name == "lm_head.weight"):
                    add_print(total, opened.get_tensor(name).to(dtype))
    return total if files else None


def apart(one: list[float], other: list[float]) -> float:
    """How far two prints lie apart, in parts of their size."""
    return max(abs(a - b) for a, b in zip(one[:2], other[:2], strict=True)) / max(one[2], other[2])


class Server:
    """One vLLM engine, and the weights that it holds."""

    def __init__(self, say: Any, requests: Queue[str]) -> None:
        self._say, self._requests = say, requests
        self._llm: Any = None
        self._options: dict[str, Any] = {}
        self._weights: tuple[str, str] | None = None  # path and stamp
        # How far the print of the first weights was from that of their files. None where they were others, or in parts
        # over several workers: then no weights are put in, since nobody could tell which answer.
        self._noise: float | None = None
        self._held: list[float] | None = None  # of what the engine really uses; None: in parts over several workers
        self._adapters: dict[str, int] = {}
        self._asleep = False

    def load(self, engine: dict[str, Any], weights: str, stamp: str) -> dict[str, Any]:
        """Have these weights in memory: by putting them into the running engine where it can be proven, else anew."""
        import vllm

        if self._llm is not None and engine == self._options:
            self._wake()
            if self._weights == (weights, stamp) or self._put_in(weights, stamp):
                return self._loaded(vllm.__version__)
        if self._llm is not None:
            raise Again  # vLLM gives its memory back with its process alone
        self._llm = vllm.LLM(model=weights, worker_extension_cls="nsd_vllm.Weights", generation_config="vllm", **engine)
        self._options, self._weights = engine, (weights, stamp)
        self._held, there = self._look(), self._there(weights)
        self._noise = None if self._held is None or there is None else apart(self._held, there)
        if self._noise is not None and self._noise > ROUNDING:
            self._noise = None
        return self._loaded(vllm.__version__)

    def _loaded(self, version: str) -> dict[str, Any]:
        import torch

        return {
            "versions": {"vllm": version, "torch": torch.__version__},
            "weights": self._held,
            "known": self._noise is not None,
            "rows": self._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs,
        }

    def _look(self) -> list[float] | None:
        """The print of the weights that the engine really uses; None where they lie in parts over several workers."""
        found = self._llm.collective_rpc("weights_here")
        return list(found[0]) if len(found) == 1 else None

    def _there(self, weights: str) -> list[float] | None:
        return print_of(Path(weights), self._llm.llm_engine.model_config.dtype) if Path(weights).is_dir() else None

    def _put_in(self, weights: str, stamp: str) -> bool:
        """Whether other weights of the same shape are now in the running engine, and are those that answer."""
        there = None if self._noise is None else self._there(weights)
        if there is None or self._noise is None:
            return False
        near = 10 * max(self._noise, 1e-12)
        self._weights = None
        # Those of the next step of a training are hardly others: only what holds none is surely told from them.
        self._llm.collective_rpc("blank")
        blank = self._look()
        if blank is None or apart(blank, there) < 4 * near:
            return False
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": weights})
        except Exception as error:  # another shape, or a version of vLLM that cannot: a new process will
            print(f"the weights cannot be put into the running engine: {error}", file=sys.stderr)
            return False
        self._llm.collective_rpc("renew")
        self._llm.reset_prefix_cache()  # what it holds was computed with the weights before
        self._held = self._look()
        self._weights = (weights, stamp)
        return self._held is not None and apart(self._held, there) <= near

    def sleep(self) -> bool:
        """Give the memory of weights and cache back until the next load. False where vLLM cannot."""
        if not self._options.get("enable_sleep_mode"):
            return False
        self._llm.sleep(level=2)
        self._asleep = True
        return True

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
            self._weights = None  # level 2 has thrown them away

    def draw(
        self,
        prompts: dict[str, list[int]],
        rows: list[tuple[str, int, int, int]],
        sampling: dict[str, Any],
        adapter: dict[str, str] | None,
        grows: bool,
    ) -> int:
        """Draw rows (question id, sample, seed, most tokens), and say in blocks how they ended. Returns how many.

        Where the drawing `grows`, whoever asks is told at once, since it may ask for more.
        """
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind

        lora = None
        if adapter is not None:
            number = self._adapters.setdefault(adapter["name"], len(self._adapters) + 1)
            lora = LoRARequest(adapter["name"], number, adapter["path"])
        confidences = sampling.pop("confidences")
        common = {**sampling, "n": 1, "output_kind": RequestOutputKind.FINAL_ONLY, "ignore_eos": True}
        common |= {"detokenize": bool(sampling["stop"]), "logprobs": MOST_LIKELY if confidences else None}
        engine = self._llm.llm_engine
        most = ROWS_WAITING * engine.vllm_config.scheduler_config.max_num_seqs
        given = 0
        waiting = deque(range(len(rows)))
        block: list[Any] = []
        told, ended = time.monotonic(), 0
        while ended < len(rows) or grows:
            while grows and (request := self._heard(wait=ended == len(rows))) is not None:
                grows = request["do"] == "more"
                further = request.get("rows", [])
                waiting.extendleft(reversed(range(len(rows), len(rows) + len(further))))
                rows.extend(further)
            while waiting and given - ended < most:
                number = waiting.popleft()
                question, _, seed, limit = rows[number]
                params = SamplingParams(**common, seed=seed, max_tokens=limit)
                engine.add_request(str(number), {"prompt_token_ids": prompts[question]}, params, lora_request=lora)
                given += 1
            if given == ended:
                continue
            for output in engine.step():
                if output.finished:
                    question, sample, _, _ = rows[int(output.request_id)]
                    block.append([question, sample, *_ended(output.outputs[0], confidences)])
                    ended += 1
            if block and (grows or ended == len(rows) or time.monotonic() - told > BLOCK_SECONDS):
                self._say({"drawn": block})
                block, told = [], time.monotonic()
        return ended

    def _heard(self, wait: bool) -> Any:
        """What was asked for meanwhile, None where it was nothing."""
        try:
            return json.loads(self._requests.get(block=wait))
        except Empty:
            return None


class Again(Exception):
    """What is asked for needs a new process."""


def _ended(output: Any, confidences: bool) -> list[Any]:
    """Token ids, how it ended, and per token its log-probability and confidence (empty where they are not asked)."""
    logprobs, sure = [], []
    if confidences:
        for token, entry in zip(output.token_ids, output.logprobs, strict=True):
            logprobs.append(entry[token].logprob)
            top = sorted((one.logprob for one in entry.values()), reverse=True)[:MOST_LIKELY]
            sure.append(-sum(top) / len(top))
    return [list(output.token_ids), output.finish_reason, logprobs, sure]


def _serve(requests: Queue[str], out: Any) -> None:
    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    server = Server(say, requests)
    while True:
        request = json.loads(requests.get())
        do = request.pop("do")
        try:
            if do == "load":
                say({"loaded": server.load(**request)})
            elif do == "draw":
                say({"whole": server.draw(**request)})
            elif do == "sleep":
                say({"asleep": server.sleep()})
        except Again:
            say({"again": True})
        except BaseException as error:
            gc.collect()
            texts = ("out of memory", "free memory on device", "kv cache", "not enough memory")
            memory = any(text in str(error).lower() for text in texts)
            say({"failed": f"{type(error).__name__}: {error}", "memory": memory})
            raise


def main() -> None:
    """Serve until standard input ends."""
    out = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")
    requests: Queue[str] = Queue()

    def listen() -> None:
        for line in sys.stdin:
            requests.put(line)
        os.killpg(0, signal.SIGKILL)  # vLLM's own processes with it: none of them may keep the device

    threading.Thread(target=listen, daemon=True).start()
    _serve(requests, out)


if __name__ == "__main__":  # vLLM's processes import this file again
    main()
