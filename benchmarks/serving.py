"""The `vllm` engine against vLLM driven by hand, and against `hf`: one model, one set of prompts, in turn.

    NSD_VLLM=FOLDER OMP_NUM_THREADS=2 python -m benchmarks.serving [--model PATH] [--questions N] [--rounds N]

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
import time

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
    print("READY", flush=True)
    for turn, _ in enumerate(sys.stdin, 1):
        print("DRAWN", json.dumps(draw(turn)), flush=True)
if __name__ == "__main__":
    main()
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:wordmath-1m")
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--samples", type=int, default=8, help="K, completions per question")
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    try:
        python = find_python()
    except InputError as error:
        print(f"not measured: {error}")
        return 0
    ref = ModelRef(models.resolve(asked.model))
    dataset = Wordmath(Wordmath.Config.model_validate({"split": {"test": asked.questions}}))
    questions = dataset.pools().train[: asked.questions]
    requests = [Request(one.id, dataset.default_prompt.render(one)) for one in questions]
    sampling = Sampling(asked.samples, 1.0, asked.max_tokens)
    verifier = Numeric(Numeric.Config())
    by_id = {one.id: one for one in questions}

    def drawn(engine: Engine, turn: int) -> tuple[list[Completion], float]:
        started = time.perf_counter()
        found = [one for block in engine.generate(ref, requests, sampling, turn) for one in block]
        return found, time.perf_counter() - started

    for confidences in (False, True):
        engine = VllmEngine(VllmEngine.Config(confidences=confidences))
        drawn(engine, 0)
        running = engine.running()
        tokenizer = models.load_tokenizer(ref)
        hand = subprocess.Popen(
            [str(python), "-P", "-c", BY_HAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
            env=running.environment,
        )
        assert hand.stdin is not None and hand.stdout is not None
        given = {
            "model": ref.path,
            "options": running.options,
            "samples": asked.samples,
            "max_tokens": asked.max_tokens,
            "prompts": [prompt_ids(tokenizer, one.prompt) for one in requests],
            "temperature": 1.0,
            "ends": [tokenizer.eos_token_id],
            "logprobs": 20 if confidences else None,
        }
        hand.stdin.write(json.dumps(given) + "\n")
        hand.stdin.flush()
        while "READY" not in (line := hand.stdout.readline()):
            if not line:
                print("vLLM by hand did not start")
                return 1
        rates: dict[str, list[float]] = {"nsd": [], "by hand": [], "hf": []}
        for turn in range(1, asked.rounds + 1):
            found, seconds = drawn(engine, turn)
            rates["nsd"].append(sum(one.tokens for one in found) / seconds)
            hand.stdin.write("\n")
            hand.stdin.flush()
            while not (line := hand.stdout.readline()).startswith("DRAWN"):
                pass
            tokens, seconds = json.loads(line.removeprefix("DRAWN"))
            rates["by hand"].append(tokens / seconds)
            held, seconds = drawn(HfEngine(), turn)
            rates["hf"].append(sum(one.tokens for one in held) / seconds)
        hand.stdin.close()
        hand.wait()
        middle = {name: statistics.median(values) for name, values in rates.items()}
        ratio = statistics.median(a / b for a, b in zip(rates["nsd"], rates["by hand"], strict=True))
        print(f"confidences {'stored' if confidences else 'left out'}, {asked.questions} questions x {asked.samples}:")
        for name, rate in middle.items():
            print(f"  {name:<8} {rate:7.0f} tokens a second")
        print(f"  nsd over vLLM by hand, median of pairs: {ratio:.2f}")
        for name, texts in (("vllm", found), ("hf", held)):
            right = sum(verifier.score(one.text, by_id[one.question_id]).score for one in texts)
            print(f"  accuracy {name:<4} {right / len(texts):.4f} of {len(texts)}")
    engine.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
