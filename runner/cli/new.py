"""`nsd new`: a commented starting spec, written where nothing stands yet."""

from __future__ import annotations

from pathlib import Path

from nsd.plugins.errors import InputError

HEADER = """\
# {title}
# nsd validate {path} checks it, nsd plan {path} shows its stages, nsd run {path} --smoke tries the way.
name: {name}
question: Do pseudo-labels of the model itself help beyond the labeled questions?
"""

BODIES = {
    "wordmath": """\
model: builtin:wordmath-1m                # ships with nsd: runs on a laptop, no download
data: {use: wordmath, split: {labeled: 500, unlabeled: 2000, test: 1000}}
labeler: {use: consensus, k: 8, temperature: 0.7, max_tokens: 80}
trainer: {use: sft, epochs: 2, batch_size: 16, learning_rate: 5e-4}
eval: {use: accuracy, temperature: 0.1, max_tokens: 80}
""",
    "gsm8k": """\
model: Qwen/Qwen2.5-0.5B-Instruct         # any Hugging Face id, or a folder: ./my-model
data: {use: gsm8k, split: {labeled: 1000, unlabeled: 4000, test: 500, seed: 42}}
labeler: {use: consensus, k: 8, temperature: 0.7, max_tokens: 256}
trainer: {use: sft, epochs: 2, batch_size: 4, learning_rate: 2e-5}
eval: {use: accuracy, temperature: 0.1, max_tokens: 256}
""",
}

TAIL = """\
seeds: [42]                               # two or more seeds support a claim about the recipe
conditions:
  base: {train_on: []}                    # the untrained model
  baseline: {train_on: [labeled]}
  noisy_student: {train_on: [labeled, pseudo], label_with: baseline}
  filtered: {train_on: [labeled, pseudo], label_with: baseline, labeler: {threshold: 0.75}}
  oracle: {train_on: [labeled, unlabeled]}  # the unlabeled questions with their true answers
hypotheses:                               # declared before the run
  alpha: 0.05
  correction: holm
  claims: [noisy_student > baseline, filtered > baseline, oracle > baseline]
"""


def write_new(path: Path, start: str) -> Path:
    """Write the starting spec. Raises InputError where a file stands already or the name is unknown."""
    if start not in BODIES:
        raise InputError(f"no starting spec {start!r}: one of {', '.join(BODIES)}")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: a spec's name ends in .yaml")
    if path.exists():
        raise InputError(f"{path} exists already; nothing was written")
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in path.stem)
    text = HEADER.format(title=name, path=path, name=name) + BODIES[start] + TAIL
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path
