"""The `vllm` engine against vLLM driven by hand, and against `hf`: one model, one set of prompts, in turn.

    NSD_VLLM=FOLDER OMP_NUM_THREADS=2 python -m benchmarks.serving [--model NAME ...] [--questions N] [--rounds N]
                                                                   [--confidences] [--record]

Models: the embedded one, `5m`, `30m` and `500m` (of benchmarks.generation), or a folder; with --confidences, another
row each. By hand: one `LLM` with the same arguments, one call of `generate` with K requests a prompt, a seed each, and
nothing made of what comes but texts. Start-up is left out on both sides: each first draws once. Rates are generated
tokens a second, medians over rounds; accuracies are over all completions of the last round, with McNemar's question
left to `nsd compare`. Without vLLM it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import GenerationConfig

from benchmarks.clocks import clocked, median_ratio
from benchmarks.frame import NotMeasured, Package, Row, argument_parser, report
from benchmarks.generation import BUILTIN, FOR_PROCESSORS, MADE, made
from nsd.plugins import models
from nsd.plugins.api import Completion, Engine, ModelRef, Question, Request, Sampling
from nsd.plugins.chat import prompt_ids
from nsd.plugins.data import Prompt
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.vllm import VllmEngine
from nsd.plugins.engines.vllm_process import find_python
from nsd.plugins.errors import InputError
from nsd.plugins.verifiers.numeric import Numeric

BY_HAND = """
import json, sys, time
import vllm
from vllm import LLM, SamplingParams
def main():
    given = json.loads(sys.stdin.readline())
    llm = LLM(model=given["model"], generation_config="vllm", **given["options"])
    def draw(turn):
        prompts, params = [], []
        for number, ids in enumerate(given["prompts"]):
            for sample in range(given["samples"]):
                prompts.append({"prompt_token_ids": ids})
                params.append(SamplingParams(
                    temperature=given["temperature"], max_tokens=given["max_tokens"],
                    seed=1 + sample + given["samples"] * (number + turn * len(given["prompts"])),
                    stop_token_ids=given["ends"], ignore_eos=True, logprobs=given["logprobs"],
                ))
        started = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        return sum(len(one.outputs[0].token_ids) for one in outputs), seconds
    draw(0)
    print("READY", vllm.__version__, flush=True)
    for turn, _ in enumerate(sys.stdin, 1):
        print("DRAWN", json.dumps(draw(turn)), flush=True)
if __name__ == "__main__":
    main()
"""


def measure(options: argparse.Namespace) -> Iterator[Row | Package]:
    """Every model without confidences and, if wanted, with them: rates, and what the texts are worth."""
    try:
        python = str(find_python())
    except InputError as error:
        raise NotMeasured(str(error)) from error
    dataset = Wordmath(Wordmath.Config.model_validate({"split": {"test": options.questions}}))
    asked = Asked(dataset.pools().train[: options.questions], dataset.default_prompt, options)
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(options.model):
            ref = ModelRef(str(made(name, Path(folder) / name)) if name in MADE else models.resolve(name))
            for confidences in (False, True) if options.confidences else (False,):
                sides = Sides(ref, asked, python, VllmEngine(VllmEngine.Config(confidences=confidences)))
                if place == 0 and not confidences:
                    yield Package("vllm", sides.hand.version)
                yield from sides.rows(f"{name}, {'with' if confidences else 'no'} confidences")


class Asked:
    """What all sides are asked, and what their texts are worth."""

    def __init__(self, questions: Sequence[Question], prompt: Prompt, options: argparse.Namespace) -> None:
        self.requests = [Request(one.id, prompt.render(one)) for one in questions]
        self.sampling = Sampling(options.samples, 1.0, options.max_tokens)
        self.device, self.rounds = options.device, options.rounds
        self._by_id = {one.id: one for one in questions}
        self._verifier = Numeric(Numeric.Config())

    def accuracy(self, found: list[Completion]) -> str:
        """The share of completions that are right."""
        scores = [self._verifier.score(one.text, self._by_id[one.question_id]).score for one in found]
        return f"{sum(scores) / len(scores):.3f}"


class Sides:
    """The `vllm` engine on a model, vLLM by hand on the same, and the `hf` engine."""

    def __init__(self, ref: ModelRef, asked: Asked, python: str, engine: VllmEngine) -> None:
        self.ref, self.asked, self.engine = ref, asked, engine
        self.drawn(engine, 0)
        running = engine.running()
        tokenizer = models.load_tokenizer(ref)
        ends = GenerationConfig.from_pretrained(ref.path).eos_token_id
        given = {
            "model": ref.path,
            "options": running.options,
            "samples": asked.sampling.n,
            "max_tokens": asked.sampling.max_tokens,
            "prompts": [prompt_ids(tokenizer, one.prompt) for one in asked.requests],
            "temperature": 1.0,
            "ends": sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}),
            "logprobs": 20 if engine.config.confidences else None,
        }
        self.hand = ByHand(python, running.environment, given)

    def drawn(self, engine: Engine, turn: int) -> tuple[list[Completion], float]:
        """Completions, and how many tokens a second."""
        found, spent = clocked(
            lambda: [
                one
                for block in engine.generate(self.ref, self.asked.requests, self.asked.sampling, turn)
                for one in block
            ]
        )
        return found, sum(one.tokens for one in found) / spent.wall

    def rows(self, title: str) -> Iterator[Row]:
        """Rounds in turn."""
        rates: dict[str, list[float]] = {"nsd": [], "by hand": [], "hf": []}
        for turn in range(1, self.asked.rounds + 1):
            found, rate = self.drawn(self.engine, turn)
            rates["nsd"].append(rate)
            rates["by hand"].append(self.hand.draw())
            held, rate = self.drawn(HfEngine(HfEngine.Config(device=self.asked.device)), turn)
            rates["hf"].append(rate)
        self.hand.end()
        self.engine.end()
        note = f"accuracy {self.asked.accuracy(found)}, that of `hf` {self.asked.accuracy(held)}, of {len(found):,}"
        what = f"the `vllm` engine, K = {self.asked.sampling.n}, {title}"
        for peer, side in (("vLLM driven by hand, same arguments", "by hand"), ("the `hf` engine", "hf")):
            mine, its = (statistics.median(rates[name]) for name in ("nsd", side))
            yield Row(what, peer, "tokens/s", mine, its, median_ratio(rates["nsd"], rates[side]), note)


class ByHand:
    """vLLM driven by hand, in a process of its own."""

    def __init__(self, python: str, environment: dict[str, str], given: dict[str, object]) -> None:
        self.process = subprocess.Popen(
            [python, "-P", "-c", BY_HAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.version = self.ask(json.dumps(given), "READY")

    def ask(self, line: str, wanted: str) -> str:
        """Send a line, and wait for the one that begins so."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        for answer in self.process.stdout:
            if answer.startswith(wanted):
                return answer.removeprefix(wanted).strip()
        raise SystemExit("serving: vLLM by hand ended")

    def draw(self) -> float:
        """Draw all once: tokens a second."""
        tokens, seconds = json.loads(self.ask("", "DRAWN"))
        return float(tokens / seconds)

    def end(self) -> None:
        """Let it go."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, device=True)
    parser.add_argument("--model", nargs="+", default=[BUILTIN, *FOR_PROCESSORS])
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--samples", type=int, default=8, help="K, completions per question")
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--confidences", action="store_true", help="also with confidences")
    options = parser.parse_args()
    return report(options, measure(options), ("torch", "transformers"))


if __name__ == "__main__":
    sys.exit(main())
