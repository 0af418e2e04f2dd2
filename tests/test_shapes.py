"""What crosses from one room to another has a shape: no bare dictionary in what a room offers to the others.

A name is offered where a product file of another room imports it, and so is every class that such a name's annotations
speak of. `to_json` and `from_json` are where a shape becomes JSON and is read again.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import REPOSITORY
from test_arrows import modules, room

MAPPINGS = {"dict", "Mapping", "MutableMapping"}
JSON = {"to_json", "from_json"}

# What still crosses as a bare dictionary, and why. A name that has got its shape must leave this list.
LEFT = {
    "what a plugin's writer sees: facts of any kind, JSON-able": """
        plugins.api.Plugin.digest_extra plugins.data.Question.meta plugins.data.TrainResult.notes
    """,
    "parts of a stage's key or job, which the plan makes and a digest hashes as they are": """
        plugins.models.identity runner.plan.model.Stage.key
        runner.plan.model.Stage.settings runner.plan.changes.Nearest.changed runner.plan.changes.made_before_code
        runner.plan.keys.Values.every runner.plan.keys.Values.told runner.plan.keys.plugin_key
        runner.plan.relatives.relatives runner.plan.relatives.siblings runner.plan.relatives.same_streams
        runner.plan.relatives.there_already
        runner.spec.model.Block.to_digest runner.spec.model.Condition.to_digest
        runner.spec.model.Validating.to_digest
        runner.store.shapes.Manifest.made_of
    """,
    "a plugin's config or a spec, as somebody wrote it": """
        runner.plan.jobs.PluginJob.config
        runner.spec.model.Block.as_written runner.spec.model.Block.written runner.spec.model.Condition.from_file
        runner.spec.model.Evaluation.from_file
        runner.spec.model.Experiment.resolved runner.spec.digest.digest_config runner.work.revote_table.VoteRow.spec
        runner.store.shapes.ResolvedSpec.conditions
        plugins.data.Prompt.chat_template_kwargs plugins.data.Request.chat_template_kwargs
        plugins.chat.training_ids plugins.chat.turn_end plugins.trainers.turns.next_turn
    """,
    "JSON to be printed": """
        reports.text.render.csv_row reports.text.summary.summary_json runner.spec.schema.Schema
    """,
    "rows of a table, whose columns are named beside them": """
        reports.judge.rows.find_run reports.judge.rows.run_rows runner.store.tables.batches runner.store.tables.read
        runner.store.tables.write
    """,
    "JSON just read, for a shape to check": "runner.store.shapes.read_object",
    "options of a command, given on by name": "runner.work.imports.storing.import_file",
}
# Lines without a check of types, by file: classes of packages that have no types.
IGNORED = {
    "plugins/engines/hf_cache.py": 1,
    "plugins/engines/hf_slots.py": 1,
    "plugins/trainers/_trl.py": 2,
    "plugins/trainers/_grpo.py": 1,
    "plugins/trainers/_loop.py": 1,
    "plugins/trainers/_order.py": 2,
    "plugins/trainers/losses.py": 1,
    "benchmarks/comparison.py": 1,
    "benchmarks/on_policy.py": 1,
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass
class Module:
    """What a file defines at its top, what it imports (name to module and name there), and its tree."""

    tree: ast.Module
    defined: dict[str, Definition]
    imported: dict[str, tuple[str, str]]


def read_modules(root: Path) -> dict[str, Module]:
    """Product files by their name within nsd; the public face is the module `nsd`."""
    files = {**modules(root), "nsd": root / "nsd" / "__init__.py"}
    found = {}
    for name, path in files.items():
        if path.is_file():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found[name] = Module(tree, dict(definitions(tree)), dict(imports(tree)))
    return found


def definitions(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node


def imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nsd":
            for alias in node.names:
                yield alias.asname or alias.name, (str(node.module).removeprefix("nsd").lstrip("."), alias.name)


def offered(known: dict[str, Module]) -> set[tuple[str, str]]:
    """(module, name) of what another room imports, also by way of a module, and of the classes that these speak of."""
    waiting: list[tuple[str, str]] = []
    for name, module in known.items():
        for local, (source, wanted) in module.imported.items():
            whole = f"{source}.{wanted}".lstrip(".")
            if whole in known and room(whole) != room(name):
                waiting += [(whole, attribute) for attribute in attributes(module.tree, local)]
            elif source in known and room(source) != room(name):
                waiting.append((source, wanted))
    found: set[tuple[str, str]] = set()
    while waiting:
        source, name = waiting.pop()
        if source not in known or (source, name) in found:
            continue
        if name not in known[source].defined:
            if name in known[source].imported:
                waiting.append(known[source].imported[name])
            continue
        found.add((source, name))
        for annotation in (spoken for _, spoken in public(known[source].defined[name], name)):
            names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
            waiting += [(source, one) for one in names]
    return found


def attributes(tree: ast.Module, local: str) -> set[str]:
    """What a file takes of a module that it imported under this name."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == local
    }


def public(node: Definition, name: str) -> Iterator[tuple[str, ast.expr]]:
    """The annotations of a function, of a class's fields and public methods, or what an alias stands for."""
    if isinstance(node, ast.ClassDef):
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef) and (not inner.name.startswith("_") or inner.name == "__init__"):
                yield from public(inner, f"{name}.{inner.name}")
            elif isinstance(inner, ast.AnnAssign) and not ast.unparse(inner.target).startswith("_"):
                yield f"{name}.{ast.unparse(inner.target)}", inner.annotation
        for base in node.bases:
            yield name, base
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.name not in JSON:
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            for spoken in [*(one.annotation for one in given), node.returns]:
                if spoken is not None:
                    yield name, as_expression(spoken)
    elif isinstance(node, ast.AnnAssign):
        yield name, node.annotation
    elif isinstance(node.value, ast.Subscript | ast.BinOp):
        yield name, node.value


def as_expression(annotation: ast.expr) -> ast.expr:
    """An annotation that is written as text, read."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def bare(annotation: ast.expr) -> bool:
    """Whether a mapping of unknown values stands anywhere in an annotation."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in MAPPINGS:
            values = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else node.slice
            if isinstance(values, ast.Name) and values.id in ("Any", "object"):
                return True
    return False


def shapeless(root: Path) -> set[str]:
    """What is offered with a bare dictionary in it: `room.file.Class.method`."""
    known = read_modules(root)
    return {
        f"{source}.{place}"
        for source, name in offered(known)
        for place, annotation in public(known[source].defined[name], name)
        if bare(annotation)
    }


def test_what_crosses_has_a_shape_or_a_reason() -> None:
    assert shapeless(REPOSITORY) == {name for names in LEFT.values() for name in names.split()}


def test_a_bare_dictionary_that_crosses_is_found(tmp_path: Path) -> None:
    store, work = tmp_path / "runner" / "store", tmp_path / "runner" / "work"
    store.mkdir(parents=True)
    work.mkdir()
    (store / "a.py").write_text(
        "from typing import Any\n"
        "Rows = list[dict[str, Any]]\n"
        "class Held:\n"
        "    fact: Mapping[str, Any]\n"
        "    count: dict[str, int]\n"
        "    def to_json(self) -> dict[str, Any]: ...\n"
        "    def _own(self) -> dict[str, Any]: ...\n"
        "def offered() -> Held: ...\n"
        "def rows(given: Rows) -> None: ...\n"
        "def here() -> dict[str, Any]: ...\n"
    )
    (work / "b.py").write_text(
        "from nsd.runner.store.a import offered\ndef late():\n    from nsd.runner.store import a\n    return a.rows\n"
    )
    assert shapeless(tmp_path) == {"runner.store.a.Rows", "runner.store.a.Held.fact"}


def unchecked(root: Path) -> list[tuple[str, str]]:
    """Every cast and every `type: ignore` of product files and benchmarks: the file, and the reason beside it."""
    found = []
    for top in ("runner", "plugins", "reports", "nsd", "benchmarks"):
        for path in sorted(one for one in (root / top).rglob("*.py") if not (root / top).is_symlink()):
            if top == "nsd" and path.relative_to(root / top).parts[0] in ("runner", "plugins", "reports"):
                continue  # links to the folders at the top
            for line in path.read_text(encoding="utf-8").splitlines():
                if "type: ignore" in line or re.search(r"\bcast\(", line):
                    found.append((path.relative_to(root).as_posix(), line.partition("type: ignore")[2]))
    return found


def test_no_cast_and_no_ignored_type_but_for_gaps_of_others_each_with_its_reason() -> None:
    found = unchecked(REPOSITORY)
    assert Counter(name for name, _ in found) == IGNORED
    assert all(re.fullmatch(r"\[[a-z-]+\]  # \w.{10,}", reason) for _, reason in found), found
