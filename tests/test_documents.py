"""What README.md and docs/*.md say, held against the code: every spec, field, command, flag, setting and number."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from typer.main import get_command

import nsd
from benchmarks import MODULES
from benchmarks.frame import RESULTS, read
from nsd.plugins.api import KINDS
from nsd.plugins.errors import InputError, Interrupted, NsdError, StageFailed
from nsd.plugins.registry import find
from nsd.runner.cli.app import app
from nsd.runner.launch import jobs, launching
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import ClaimConfig, ConditionConfig, HypothesesConfig, Resources
from nsd.runner.spec.schema import json_schema
from nsd.runner.work.sync import PUSH_SECONDS
from support import REPOSITORY
from test_arrows import ARROWS

DOCUMENTS = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
}
README = DOCUMENTS["README.md"]
EVERYTHING = "\n".join(DOCUMENTS.values())
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)


def spans(text: str) -> list[str]:
    """What stands between single backticks, outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table whose first column is headed so."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[1].splitlines()]


# --------------------------------------------------------------------------- specs

(STUDY,) = [text for language, text in FENCED.findall(README) if language == "yaml" and "name: my-study" in text]
OPEN = {
    "path: ...": "path: builtin:wordmath-1m",
    "system: ...": "system: Be brief.",
    "{...}": "{adam_beta2: 0.98}",
    "[a, b]": "[oracle, baseline]",
    ": N}": ": 2}",
}
# Where a field may stand, with the way there in STUDY; the first that knows all of a snippet's fields is meant.
PLACES: list[tuple[tuple[str | int, ...], set[str]]] = [
    ((), set(json_schema()["properties"])),
    (("conditions", "noisy_student"), set(ConditionConfig.model_fields)),
    (("resources",), set(Resources.model_fields)),
    (("hypotheses",), set(HypothesesConfig.model_fields)),
    (("hypotheses", "claims", 0), set(ClaimConfig.model_fields)),
    (("conditions", "asked", "engine"), set(find("engine", "openai").Config.model_fields)),
]
ASKED = {"train_on": [], "engine": {"use": "openai", "base_url": "http://127.0.0.1:8000/v1", "model": "toy"}}


def merged(base: Any, change: Any) -> Any:
    """`change` over `base`, mappings deeply."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}


def _keys_as_written(value: Any) -> Any:
    """`on` is a key to nsd, and true to PyYAML."""
    if isinstance(value, list):
        return [_keys_as_written(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {"on" if key is True else key: _keys_as_written(one) for key, one in value.items()}


def study_with(snippet: str, folder: Path) -> Any:
    """The README's spec with a snippet where it belongs, loaded; files that it names are there."""
    for words, value in OPEN.items():
        snippet = snippet.replace(words, value)
    change = _keys_as_written(yaml.safe_load(snippet))
    assert isinstance(change, dict), snippet
    found = [way for way, known in PLACES if set(change) <= known]
    assert found, f"nothing knows {sorted(change)}: {snippet}"
    for step in reversed(found[0]):
        change = {step: change} if isinstance(step, str) else [{"compare": ["oracle", "baseline"], **change}]
    study = yaml.safe_load(STUDY)
    if "asked" in found[0]:
        study["conditions"]["asked"] = ASKED
    if "extends" in change:
        (folder / change["extends"]).write_text(STUDY)
        study = {"name": "another"}
    claims = change.get("hypotheses", {}) if isinstance(change.get("hypotheses"), dict) else {}
    if any("on" in claim for claim in claims.get("claims", ()) if isinstance(claim, dict)) and "evals" not in change:
        change["evals"] = {"main": "accuracy", "retention": {"use": "avg_at_k", "k": 4}}
    if "evals" in change:  # in the place of `eval`
        del study["eval"]
    (plugin,) = [text for language, text in FENCED.findall(README) if language == "python" and "class LastWord" in text]
    (folder / "last_word.py").write_text(plugin)
    (folder / "spec.yaml").write_text(yaml.safe_dump(merged(study, change)))
    return load_spec(folder / "spec.yaml")


def mappings(text: str) -> list[str]:
    """Code spans that are a field with its value."""
    found = [span for span in spans(text) if re.match(r"\{?[a-z_]+: ", span) and span not in ("max_usd: ",)]
    return sorted(set(found))


@pytest.mark.parametrize("row", rows("field"), ids=lambda row: row[0][:40])
def test_every_further_field_is_a_field(row: list[str], tmp_path: Path) -> None:
    first, *others = spans(row[0])
    before = load_spec_text(STUDY, tmp_path)
    after = study_with(first, tmp_path)
    assert after.resolved != before.resolved or first.startswith(("extends", "init: base"))
    for other in others:  # `init: base` or `teacher`
        study_with(re.sub(r": .*", f": {other}", first), tmp_path)


def load_spec_text(text: str, folder: Path) -> Any:
    path = folder / "plain.yaml"
    path.write_text(text)
    return load_spec(path)


def test_a_snippet_with_a_wrong_field_would_be_noticed(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        study_with("sweep: {condition: filtered, grid: {labeler.threshold: [0.5, 1.0]}}", tmp_path)


@pytest.mark.parametrize("snippet", mappings(EVERYTHING))
def test_every_field_in_the_text_is_a_field(snippet: str, tmp_path: Path) -> None:
    assert study_with(snippet, tmp_path).name in ("my-study", "another")


@pytest.mark.parametrize(
    "block", [text for language, text in FENCED.findall(EVERYTHING) if language == "yaml" and "name: " not in text]
)
def test_every_part_of_a_spec_is_one(block: str, tmp_path: Path) -> None:
    study_with(block, tmp_path)
    # What stands commented out is meant as well: fields with two blanks or more between them.
    commented = " ".join(line.split("#", 1)[1] for line in block.splitlines() if line.lstrip().startswith("#"))
    for field in re.findall(r"(\w+): (\[[^\]]*\]|\S+)", commented):
        if field[1] != "...":
            study_with(f"resources: {{{field[0]}: {field[1]}}}", tmp_path)


# --------------------------------------------------------------------------- commands

ROOT: Any = get_command(app)
PLACEHOLDERS = {"N": "3", "FILE": "page.html", "URI": "file:///shared", "...": "x"}


def commands() -> list[str]:
    """Every `nsd ...` of the documents: code spans, lines of code blocks, and flags that a row names alone."""
    found = [span for span in spans(EVERYTHING) if span.startswith("nsd ")]
    lines = [line for _, block in FENCED.findall(EVERYTHING) for line in block.splitlines()]
    lines += INDENTED.findall(EVERYTHING)
    found += [line.split("#")[0].strip() for line in lines if line.startswith("nsd ")]
    for names, text in rows("command"):
        for flag in (span for span in spans(text) if span.startswith("--")):
            found += [f"{name} {flag}" for name in spans(names)]
    return sorted({one for one in found if "=" not in one.split()[1]})


def parse(line: str) -> None:
    """Parse a command line as `nsd` would, and run nothing. Raises click's error for what it does not know."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line.replace("[", "").replace("]", ""))]
    command = ROOT
    _, *rest = words
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if "start" in command.commands and rest[0] not in command.commands:
            rest = ["start", *rest]  # `nsd launch SPEC`
        name, *rest = rest
        assert name in command.commands, f"{line}: no command {name}"
        command = command.commands[name]
        if not rest and hasattr(command, "commands"):
            return
    with command.make_context(name, list(rest)):
        pass


@pytest.mark.parametrize("line", commands())
def test_every_command_takes_what_is_said(line: str) -> None:
    line = re.sub(r"(--format) \w+, (\w+)", r"\1 \2", line.replace("SPEC...", "SPEC"))
    if len(line.split()) > 2:
        *head, last = line.split(" ")  # in the table a flag may stand without its value
        line = " ".join([*head, {"--baseline": "--baseline RUN", "--format": "--format json"}.get(last, last)])
        parse(line)
    else:  # named, not called
        assert line.split()[1] in {"--help", *ROOT.commands}


@pytest.mark.parametrize(
    "line", ["nsd run SPEC --repeat-evals 3", "nsd run --smoke", "nsd db rebuilt", "nsd runn SPEC"]
)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"No such option|Missing parameter|no command"):  # typer has a click of its own
        parse(line)


def all_flags() -> set[str]:
    found, todo = {"--help"}, [ROOT]
    while todo:
        command = todo.pop()
        todo += list(getattr(command, "commands", {}).values())
        for parameter in command.params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


@pytest.mark.parametrize(
    "flag", sorted({word for span in spans(EVERYTHING) for word in re.findall(r"--[a-z-]+", span)})
)
def test_every_flag_is_one_of_nsd(flag: str) -> None:
    foreign = [
        span
        for span in spans(EVERYTHING)
        if span.startswith("sky ") or re.search(r"python -m (tests|benchmarks)\b", span)
    ]
    others = set(re.findall(r"--[a-z-]+", "\n".join(foreign)))
    assert flag in all_flags() | others


def test_every_command_of_nsd_is_in_the_table() -> None:
    named = {words.split()[1] for names, _ in rows("command") for words in spans(names)}
    assert named == {name for name, command in ROOT.commands.items() if not command.hidden}


# --------------------------------------------------------------------------- everything else that is named


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m benchmarks\.(\w+)", EVERYTHING))))
def test_every_benchmark_exists_and_make_bench_runs_it(module: str) -> None:
    assert module in MODULES and (REPOSITORY / "benchmarks" / f"{module}.py").is_file()


RECORDED = read(RESULTS.read_text(encoding="utf-8"))


def test_every_benchmark_has_a_recorded_section() -> None:
    assert {one.benchmark for one in RECORDED} == set(MODULES)


def quoted() -> list[tuple[str, str]]:
    """Benchmark and ratio of every row of the README's table that names a command; `same` is that of the row above."""
    found, command = [], ""
    for _, asked, _, ratios in rows("what \\| command \\| against"):
        command = command if asked == "same" else asked
        (module,) = re.findall(r"python -m benchmarks\.(\w+)", command)
        found += [(module, ratio) for ratio in re.findall(r"[\d.]+", ratios)]
    return found


@pytest.mark.parametrize(("module", "ratio"), quoted())
def test_every_ratio_of_the_readme_is_a_recorded_one(module: str, ratio: str) -> None:
    assert ratio in frozenset().union(*(one.ratios for one in RECORDED if one.benchmark == module))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)(?=`|  )", EVERYTHING))))
def test_every_target_of_make_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


def test_exit_codes_are_those() -> None:
    found = re.search(r"Exit codes: 0 done, (\d+) a stage failed .*?, (\d+) bad input, (\d+) interrupted", README)
    assert found is not None
    assert tuple(map(int, found.groups())) == (StageFailed.exit_code, InputError.exit_code, Interrupted.exit_code)
    assert NsdError.exit_code == StageFailed.exit_code


def test_the_kinds_of_plugins_are_those() -> None:
    found = re.search(r"The kinds are ([\w, ]+) and (\w+);", README)
    assert found is not None and {*found[1].split(", "), found[2]} == set(KINDS)


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"\bNSD_[A-Z_]+", EVERYTHING))))
def test_every_setting_is_read(setting: str) -> None:
    files = [path for room in ("plugins", "runner") for path in (REPOSITORY / room).rglob("*.py")]
    files += [REPOSITORY / "sky.yaml", REPOSITORY / "tests" / "support.py"]
    assert any(setting in path.read_text(encoding="utf-8") for path in files)


PATHS = {span for span in spans(EVERYTHING) if re.match(r"(?!bin/)[a-z_]+/[\w./-]*$", span)}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_path_exists(path: str) -> None:
    assert (REPOSITORY / path).exists()


ARCHITECTURE = DOCUMENTS["docs/architecture.md"]


@pytest.mark.parametrize(("name", "path"), sorted(set(re.findall(r"`(\w+)`\s+\(`([\w/]+\.py)`\)", ARCHITECTURE))))
def test_every_name_is_in_the_file_named_with_it(name: str, path: str) -> None:
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    defined = {getattr(node, "name", None) for node in tree.body}
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert name in defined | assigned


def test_the_table_of_rooms_has_the_arrows() -> None:
    table = re.search(r"^\| room \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", ARCHITECTURE, re.MULTILINE)
    assert table is not None
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[1].splitlines()]
    said = {spans(room)[0].replace("/", "."): {one.replace("/", ".") for one in spans(few)} for room, _, few in cells}
    assert said.pop("runner.cli") == set() and cells[-1][2] == "every room"
    assert said == {room: few for room, few in ARROWS.items() if room != "runner.cli"}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", EVERYTHING))))
def test_every_link_leads_somewhere(name: str) -> None:
    assert any(
        (REPOSITORY / Path(document).parent / name).exists() for document, text in DOCUMENTS.items() if name in text
    )


@pytest.mark.parametrize("extra", sorted(set(re.findall(r"(?:nsd|\.)\[([\w,]+)\]", EVERYTHING))))
def test_every_extra_exists(extra: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert set(extra.split(",")) <= set(project["optional-dependencies"])


def test_the_python_face_has_the_names_used() -> None:
    blocks = [text for language, text in FENCED.findall(README) if language == "python" and "import nsd" in text]
    used = {
        node.attr
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nsd"
    }
    assert used and all(hasattr(nsd, name) for name in used)


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("goes down after five idle minutes", jobs.IDLE_MINUTES == 5),
        ("checkpoints every 20 seconds", PUSH_SECONDS == 20),
        ("at most 20 seconds and a checkpoint's interval", PUSH_SECONDS == 20),
        ("two hours, or a fifth of the budget", (launching.KEEP_SECONDS, launching.KEEP_SHARE) == (7200, 0.2)),
        ("work of more than two hours with a store", launching.LONG_HOURS == 2),
    ],
)
def test_numbers_in_sentences_are_those_of_the_code(sentence: str, number: bool) -> None:
    assert sentence in " ".join(EVERYTHING.split()) and number


def test_versions_are_those_of_the_constraints() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    found = re.search(r"Training runs TRL (\d+\.\d+)", README)
    assert found is not None and f"trl>={found[1]}" in project
    pinned = re.search(r"^skypilot\S*==([\d.]+)", (REPOSITORY / "constraints-sky.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert set(re.findall(r"(?:SkyPilot |skypilot\[\w+\]==)(\d+\.\d+\.\d+)", EVERYTHING)) == {pinned[1]}
