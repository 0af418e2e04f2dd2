"""The list of faults: every mutation that mutmut makes in the rooms below, one drawn per statement.

The draw is by hash, not by position: a statement keeps its rank while other code changes, and the first hundred of a
list are the first hundred of a longer one. Drawing statements, not mutations, spreads the faults over the files by
their code; a call with ten arguments has a hundred mutations and is still one place to go wrong.

Left out is what no test of a result could notice, or only a test of wording: docstrings and annotations (by mutmut),
`if TYPE_CHECKING`, decorators' own arguments (by mutmut), `encoding=` and zip's `strict=`, SQL in other letters, and
prose, which is any string with white space in it that is not SQL, with everything inside its braces. Prompts are prose
by this rule.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOMS = {
    "plan": ["runner/plan/*.py"],
    "stages": ["runner/work/stages.py", "runner/work/drawing.py", "runner/work/score.py"],
    "labelers": ["plugins/labelers/*.py", "plugins/protocols/*.py", "plugins/rewards/*.py"],
    "verifiers": ["plugins/verifiers/*.py"],
    "judge": ["reports/judge/*.py", "reports/text/matrix.py"],
    "stats": ["reports/stats/*.py"],
    "store": ["runner/store/*.py"],
}
SQL = re.compile(
    r"\s*(SELECT|INSERT|CREATE|DELETE|UPDATE|DROP|ALTER|WITH|FROM|LEFT|JOIN|USING|WHERE|GROUP|ORDER|AND)\b"
)
UNNOTICEABLE_ARGUMENTS = {"encoding", "strict"}


@dataclass(frozen=True)
class Fault:
    """One changed statement. `first` and `last` are its lines (of a compound statement, its head's).

    `imported`: an import executes it (a constant, a field, a default).
    """

    key: str
    room: str
    file: str
    line: int
    first: int
    last: int
    imported: bool
    diff: str
    mutated: str


def prose_text(node: cst.CSTNode) -> str | None:
    """The literal text of a string expression; None where the node is none."""
    if isinstance(node, cst.SimpleString):
        return node.value
    if isinstance(node, cst.FormattedString):
        return "".join(part.value for part in node.parts if isinstance(part, cst.FormattedStringText))
    if isinstance(node, cst.ConcatenatedString):
        return (prose_text(node.left) or "") + (prose_text(node.right) or "")
    return None


def is_prose(node: cst.CSTNode | None) -> bool:
    text = None if node is None else prose_text(node)
    return text is not None and bool(re.search(r"\s", text.strip("\"'rfb "))) and not SQL.match(text.lstrip("rfb\"'"))


class Mutations(MutationVisitor):
    """mutmut's visitor, which also looks into decorated functions (its trampolines cannot) and never into prose."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if is_prose(node):
            return True
        if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value in UNNOTICEABLE_ARGUMENTS:
            return True
        if isinstance(node, cst.If) and isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING":
            return True
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in {"cast", "TypeVar"}:
            return True
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        return bool(super()._skip_node_and_children(node))


def _changes_prose_alone(mutation: Mutation) -> bool:
    before, after = mutation.original_node, mutation.mutated_node
    if (sql := prose_text(before)) is not None and SQL.match(sql.lstrip("rfb\"'")) and "'" not in sql.strip("'"):
        return sql.casefold() == (prose_text(after) or "").casefold()  # SQL's words and names know no case
    if isinstance(before, cst.Call) and isinstance(after, cst.Call):
        changed = [arg for arg in before.args if not any(arg is other for other in after.args)]
        return any(
            is_prose(arg.value) or (arg.keyword is not None and arg.keyword.value in UNNOTICEABLE_ARGUMENTS)
            for arg in changed
        )
    if isinstance(before, cst.Assign | cst.AnnAssign) and not isinstance(after, cst.AugAssign):
        return is_prose(before.value)
    return False


def _statements(source: str) -> dict[tuple[int, int], bool]:
    """(first line, last line) of each statement, of a compound one its head alone, and whether an import executes it.

    Sorted, inner statements after outer ones.
    """
    found: dict[tuple[int, int], bool] = {}

    def visit(node: ast.AST, imported: bool) -> None:
        for child in ast.iter_child_nodes(node):
            head = child.pattern if isinstance(child, ast.match_case) else child
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                body = getattr(child, "body", None)
                first = min([head.lineno, *(each.lineno for each in getattr(child, "decorator_list", []))])
                found[first, max(first, body[0].lineno - 1 if body else child.end_lineno or first)] = imported
            visit(child, imported and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(ast.parse(source), True)
    return dict(sorted(found.items(), key=lambda each: (each[0][0], -each[0][1])))


@cache
def _module(source: str) -> tuple[cst.Module, dict[tuple[int, int], list[tuple[int, Mutation]]]]:
    """The parsed file, and its mutations with their lines, by statement."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = Mutations(mutation_operators, IgnoredCode(set(), set(), set()))
    module = wrapper.visit(visitor)
    positions = wrapper.resolve(PositionProvider)
    statements, found = _statements(source), defaultdict(list)
    for mutation in visitor.mutations:
        position = positions.get(mutation.original_node) or _inner_position(mutation.original_node, positions)
        if position is None or _changes_prose_alone(mutation):
            continue
        line = position.start.line
        around = [span for span in statements if span[0] <= line <= span[1]]
        # The innermost statement starts last.
        found[around[-1] if around else (line, line)].append((line, mutation))
    return module, found


def _inner_position(node: cst.CSTNode, positions: Mapping[cst.CSTNode, CodeRange]) -> CodeRange | None:
    found = (positions.get(child) or _inner_position(child, positions) for child in node.children)
    return next((each for each in found if each), None)


def files_of(root: Path) -> dict[str, str]:
    """Each file to mutate, with its room. Raises FileNotFoundError where a room's pattern meets no file."""
    found = {}
    for room, patterns in ROOMS.items():
        for pattern in patterns:
            matched = sorted(root.glob(pattern))
            if not matched:
                raise FileNotFoundError(f"{pattern}: no such file; mend ROOMS in {Path(__file__).name}")
            found.update({str(path.relative_to(root)): room for path in matched})
    return found


def draw(root: Path, count: int, seed: int) -> tuple[list[Fault], dict[str, int]]:
    """`count` faults in the order of the draw, and how many statements of each room can hold one."""
    places = []
    sizes: dict[str, int] = defaultdict(int)
    for file, room in files_of(root).items():
        source = (root / file).read_text(encoding="utf-8")
        lines, seen = source.splitlines(), defaultdict(int)
        for span in sorted(_module(source)[1]):
            text = "\n".join(lines[span[0] - 1 : span[1]]).strip()
            seen[text] += 1
            places.append((_hash(seed, file, text, seen[text]), room, file, span))
            sizes[room] += 1
    drawn: list[Fault] = []
    for place in sorted(places):
        if len(drawn) == count:
            break
        fault = _fault(root, *place)
        drawn += [fault] if fault else []
    return drawn, dict(sizes)


def _fault(root: Path, rank: str, room: str, file: str, span: tuple[int, int]) -> Fault | None:
    """The drawn mutation of a statement; None where each leaves the meaning of the file as it is."""
    source = (root / file).read_text(encoding="utf-8")
    module, found = _module(source)
    meaning = ast.dump(ast.parse(source))
    mutations = found[span]
    # Which mutation of the statement is drawn depends on the statement alone.
    for index in sorted(range(len(mutations)), key=lambda index: _hash(rank, index)):
        line, mutation = mutations[index]
        mutated = module.deep_replace(mutation.original_node, mutation.mutated_node).code
        try:
            compile(mutated, file, "exec")
        except (SyntaxError, ValueError):
            continue
        if ast.dump(ast.parse(mutated)) != meaning:
            changes = list(difflib.unified_diff(source.splitlines(), mutated.splitlines(), lineterm="", n=0))
            diff = "\n".join(each for each in changes[2:] if not each.startswith("@@"))
            imported = _statements(source).get(span, True)
            return Fault(_hash(rank, index)[:12], room, file, line, *span, imported, diff, mutated)
    return None


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
