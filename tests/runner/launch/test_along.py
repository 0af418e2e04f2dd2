"""What goes to a machine with a spec: each kind of file that a spec names, laid out as here, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.launch.along import Along, files_of
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec

ROWS = "".join(
    json.dumps({"question": f"{n} and 1?", "answer": str(n + 1), "side": f"side/{n}.json"}) + "\n" for n in range(6)
)
SPEC = """\
name: own
model: builtin:wordmath-1m
data: {use: jsonl, train: rows.jsonl, split: {test: 4}}
conditions: {base: {train_on: []}}
"""
VERIFIER = """\
from nsd import Verifier

from tables.words import last


class Last(Verifier):
    def extract(self, completion):
        return last(completion)
"""


def write(folder: Path, **files: str) -> None:
    """Files by their names, `__` for a slash and `_` before the ending for a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def plan_of(spec: Path) -> Plan:
    return build_plan(load_spec(spec, run_files=True), pin=True)


def along(spec: Path, *more: str) -> Along:
    return files_of(spec, plan_of(spec), more)


def test_the_spec_alone_goes_alone(tmp_path: Path) -> None:
    spec = SPEC.replace("jsonl, train: rows.jsonl", "wordmath")
    write(tmp_path, own_yaml=spec, other_yaml=spec, notes_txt="x")
    found = along(tmp_path / "own.yaml")
    assert (found.names, found.spec, found.root, found.elsewhere) == (["own.yaml"], "own.yaml", tmp_path, [])


def test_data_and_plugin_files_go_with_what_lies_beside_them_and_is_imported(tmp_path: Path) -> None:
    spec = SPEC + "verifier: {use: './judges/last.py:Last'}\n"
    write(tmp_path, own_yaml=spec, rows_jsonl=ROWS, judges__last_py=VERIFIER, judges__tables__words_py="last = str\n")
    write(tmp_path, judges__unused_py="", judges__tables__more_csv="")
    names = along(tmp_path / "own.yaml").names
    assert names == ["own.yaml", "judges/last.py", "judges/tables/words.py", "rows.jsonl"]


def test_what_is_extended_goes_from_above_too(tmp_path: Path) -> None:
    write(tmp_path, base_yaml=SPEC, rows_jsonl=ROWS, deep__er__own_yaml="extends: ../../base.yaml\nname: own\n")
    found = along(tmp_path / "deep/er/own.yaml")
    assert found.names == ["deep/er/own.yaml", "base.yaml", "rows.jsonl"] and found.root == tmp_path


def test_a_path_counts_from_the_file_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, base__base_yaml=SPEC, base__rows_jsonl=ROWS, rows_jsonl="not this one")
    write(tmp_path, own_yaml="extends: base/base.yaml\nname: own\n")
    assert along(tmp_path / "own.yaml").names == ["own.yaml", "base/base.yaml", "base/rows.jsonl"]


def test_lists_and_what_conditions_and_sweeps_name_go(tmp_path: Path) -> None:
    spec = SPEC.replace("train: rows.jsonl", "train: [rows.jsonl, more.jsonl]").replace("{train_on: []}", "ARM")
    arm = "{train_on: [], engine: {use: replay, path: said.jsonl, fields: {completion: said}}}"
    said = "".join(json.dumps({"question": f"{n} and 1?", "said": "1"}) + "\n" for n in range(12))
    more = ROWS.replace(" and 1?", " and 2?")
    write(tmp_path, own_yaml=spec.replace("ARM", arm), rows_jsonl=ROWS, more_jsonl=more, said_jsonl=said)
    assert along(tmp_path / "own.yaml").names == ["own.yaml", "more.jsonl", "rows.jsonl", "said.jsonl"]


def test_the_plugin_file_of_a_block_that_every_condition_replaces_goes_too(tmp_path: Path) -> None:
    """The machine's nsd checks the block all the same, and would miss the file."""
    spec = SPEC.replace("{train_on: []}", "{train_on: [], verifier: numeric}") + "verifier: {use: './last.py:Last'}\n"
    write(tmp_path, own_yaml=spec, rows_jsonl=ROWS, last_py=VERIFIER, tables__words_py="last = str\n")
    assert {"last.py", "tables/words.py"} <= set(along(tmp_path / "own.yaml").names)


def test_files_that_rows_name_go(tmp_path: Path) -> None:
    spec = SPEC.replace("split:", "fields: {side_files: {tests: side}}, split:")
    write(tmp_path, own_yaml=spec.replace("rows.jsonl", "data/rows.jsonl"), data__rows_jsonl=ROWS)
    write(tmp_path, **{f"data__side__{n}_json": "{}" for n in range(7)})  # the last is named by no row
    found = along(tmp_path / "own.yaml").names
    assert found == ["own.yaml", "data/rows.jsonl", *(f"data/side/{n}.json" for n in range(6))]


def test_a_local_model_goes_as_a_folder_without_what_is_hidden(tmp_path: Path) -> None:
    spec = SPEC.replace("builtin:wordmath-1m", "./weights").replace("jsonl, train: rows.jsonl", "wordmath")
    write(tmp_path, own_yaml=spec, weights__config_json="{}", weights__model__part_bin="x")
    (tmp_path / "weights/.git").mkdir()
    (tmp_path / "weights/.git/config").write_text("token")
    (tmp_path / "weights/.env").write_text("token")
    plan = Plan(load_spec(tmp_path / "own.yaml"), "own", "d", {}, [], {}, [])
    found = files_of(tmp_path / "own.yaml", plan)
    assert found.names == ["own.yaml", "weights/config.json", "weights/model/part.bin"]


def with_a_model(folder: Path) -> Plan:
    """The plan of own.yaml, whose model is a folder of two weights."""
    spec = SPEC.replace("builtin:wordmath-1m", "./weights").replace("jsonl, train: rows.jsonl", "wordmath")
    write(folder, own_yaml=spec, weights__a_bin="a", weights__z_bin="z")
    return Plan(load_spec(folder / "own.yaml"), "own", "d", {}, [], {}, [])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
        (lambda path: path.symlink_to("m.bin"), "a link that leads nowhere"),
        (os.mkfifo, "no file"),
    ],
    ids=["dangling", "circle", "pipe"],
)
def test_what_cannot_be_sent_is_refused_and_takes_no_other_file_of_the_folder_with_it(
    tmp_path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    plan, bad = with_a_model(tmp_path), tmp_path / "weights/m.bin"
    spoil(bad)
    with pytest.raises(InputError, match=f"{bad} goes to the machine .*, and it is {why}: mend it"):
        files_of(tmp_path / "own.yaml", plan)
    bad.unlink()
    assert files_of(tmp_path / "own.yaml", plan).names == ["own.yaml", "weights/a.bin", "weights/z.bin"]


def test_a_text_that_is_no_path_is_passed_over(tmp_path: Path) -> None:
    spec = SPEC.replace("name: own", f"name: own\nquestion: '{'x' * 5000}'")
    write(tmp_path, own_yaml=spec, rows_jsonl=ROWS)
    assert along(tmp_path / "own.yaml").names == ["own.yaml", "rows.jsonl"]


def test_a_link_goes_as_the_file_that_it_leads_to(tmp_path: Path) -> None:
    write(tmp_path, store__rows_jsonl=ROWS, here__own_yaml=SPEC)
    (tmp_path / "here/rows.jsonl").symlink_to(tmp_path / "store/rows.jsonl")
    found = along(tmp_path / "here/own.yaml")
    assert found.names == ["own.yaml", "rows.jsonl"] and found.root == tmp_path / "here"
    found.copy(tmp_path / "sent")
    assert not (tmp_path / "sent/rows.jsonl").is_symlink() and (tmp_path / "sent/rows.jsonl").read_text() == ROWS


def test_an_absolute_path_stays_and_is_told(tmp_path: Path) -> None:
    write(tmp_path, own_yaml=SPEC.replace("rows.jsonl", f"{tmp_path}/rows.jsonl"), rows_jsonl=ROWS)
    found = along(tmp_path / "own.yaml")
    assert found.names == ["own.yaml"] and found.elsewhere == [f"{tmp_path}/rows.jsonl"]


def test_an_absolute_spec_that_is_extended_stays_and_is_told(tmp_path: Path) -> None:
    write(tmp_path, base_yaml=SPEC, rows_jsonl=ROWS, own_yaml=f"extends: {tmp_path}/base.yaml\nname: own\n")
    assert along(tmp_path / "own.yaml").elsewhere == [f"{tmp_path}/base.yaml"]


def test_more_goes_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, own_yaml=SPEC, rows_jsonl=ROWS, tables__a_csv="", tables__b_csv="", other_csv="")
    monkeypatch.chdir(tmp_path)
    assert along(Path("own.yaml"), "tables").names == ["own.yaml", "rows.jsonl", "tables/a.csv", "tables/b.csv"]
    with pytest.raises(InputError, match="--send nothing: there is no such file or folder"):
        along(Path("own.yaml"), "nothing")


def test_the_common_folder_is_looked_for_once_however_many_files_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted over all files: once for each of them, two thousand files took most of a minute."""
    write(tmp_path, own_yaml="", **{f"data__{number}_txt": "x" for number in range(20)})
    found = Along(tmp_path / "own.yaml", {path: path for path in tmp_path.rglob("*") if path.is_file()})
    looked: list[int] = []
    common = os.path.commonpath
    monkeypatch.setattr(os.path, "commonpath", lambda paths: looked.append(1) or common(paths))
    assert len(found.names) == 21 and len(looked) == 1
    found.copy(tmp_path / "sent")
    assert (tmp_path / "sent/data/19.txt").is_file() and len(looked) == 2


def test_what_went_is_planned_there_as_here(tmp_path: Path) -> None:
    spec = "extends: ../base.yaml\nname: own\nverifier: {use: './last.py:Last'}\n"
    write(tmp_path, base_yaml=SPEC, rows_jsonl=ROWS, deep__own_yaml=spec, deep__last_py=VERIFIER)
    write(tmp_path, deep__tables__words_py="last = str\n")
    here = plan_of(tmp_path / "deep/own.yaml")
    found = files_of(tmp_path / "deep/own.yaml", here)
    found.copy(tmp_path / "sent")
    (tmp_path / "rows.jsonl").unlink()
    there = plan_of(tmp_path / "sent" / found.spec)
    assert list(there.stages) == list(here.stages) and there.spec_digest == here.spec_digest
