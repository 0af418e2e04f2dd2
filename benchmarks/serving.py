"""The `vllm` engine against vLLM driven by hand, and against `hf`: one model, one set of prompts, in turn.

    NSD_VLLM=FOLDER OMP_NUM_THREADS=2 python -m benchmarks.serving [--model PATH] [--questions N] [--rounds N]
                                                                   [--record]

By hand: one `LLM` with the same arguments, one call of `generate` with K requests a prompt, a seed each, and nothing
made of what comes but texts. Start-up is left out on both sides: each first draws once. Rates are generated tokens a
second, medians over rounds; accuracies are over all completions of the last round, with McNemar's question left to
`nsd compare`. Without vLLM it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.clocks import clocked, median_ratio
from benchmarks.frame import NotMeasured, Package, Row, argument_parser, report
from nsd.plugins import models
from nsd.plugins.api import Completion, Engine, ModelRef, Request, Sampling
from nsd.plugins.chat import prompt_ids
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
    """Rates without confidences and with them, and what the texts are worth."""
    try:
        python = find_python()
    except InputError as error:
        raise NotMeasured(str(error)) from error
    ref = ModelRef(models.resolve(options.model))
    dataset = Wordmath(Wordmath.Config.model_validate({"split": {"test": options.questions}}))
    questions = dataset.pools().train[: options.questions]
    requests = [Request(one.id, dataset.default_prompt.render(one)) for one in questions]
    sampling = Sampling(options.samples, 1.0, options.max_tokens)
    verifier = Numeric(Numeric.Config())
    by_id = {one.id: one for one in questions}

    def drawn(engine: Engine, turn: int) -> tuple[list[Completion], float]:
        """Completions, and how many tokens a second."""
        found, spent = clocked(
            lambda: [one for block in engine.generate(ref, requests, sampling, turn) for one in block]
        )
        return found, sum(one.tokens for one in found) / spent.wall

    def right(found: list[Completion]) -> str:
        """The accuracy of completions."""
        return f"{sum(verifier.score(one.text, by_id[one.question_id]).score for one in found) / len(found):.3f}"

    for confidences in (False, True):
        engine = VllmEngine(VllmEngine.Config(confidences=confidences))
        drawn(engine, 0)
        running = engine.running()
        tokenizer = models.load_tokenizer(ref)
        given = {
            "model": ref.path,
            "options": running.options,
            "samples": options.samples,
            "max_tokens": options.max_tokens,
            "prompts": [prompt_ids(tokenizer, one.prompt) for one in requests],
            "temperature": 1.0,
            "ends": [tokenizer.eos_token_id],
            "logprobs": 20 if confidences else None,
        }
        hand = ByHand(str(python), running.environment, given)
        if not confidences:
            yield Package("vllm", hand.version)
        rates: dict[str, list[float]] = {"nsd": [], "by hand": [], "hf": []}
        for turn in range(1, options.rounds + 1):
            found, rate = drawn(engine, turn)
            rates["nsd"].append(rate)
            rates["by hand"].append(hand.draw())
            held, rate = drawn(HfEngine(HfEngine.Config(device=options.device)), turn)
            rates["hf"].append(rate)
        hand.end()
        accuracies = f"accuracy {right(found)}, that of `hf` {right(held)}, of {len(found):,}"
        what = f"the `vllm` engine, K = {options.samples}, {'with' if confidences else 'no'} confidences"
        for peer, side, note in (
            ("vLLM driven by hand, same arguments", "by hand", accuracies),
            ("the `hf` engine", "hf", accuracies),
        ):
            own, other = (statistics.median(rates[name]) for name in ("nsd", side))
            yield Row(what, peer, "tokens/s", own, other, median_ratio(rates["nsd"], rates[side]), note)
    engine.end()


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
    parser.add_argument("--model", default="builtin:wordmath-1m")
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--samples", type=int, default=8, help="K, completions per question")
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    return report(options, measure(options), ("torch", "transformers"))


if __name__ == "__main__":
    sys.exit(main())
