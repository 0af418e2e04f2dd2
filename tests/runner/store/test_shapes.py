"""Shapes of what lies on disk: what is written as it was read, what may lack, and what is refused with its place."""

from __future__ import annotations

import json

import pytest

from nsd.runner.store import shapes
from nsd.runner.store.shapes import (
    Broken,
    Hypotheses,
    Imported,
    Key,
    Manifest,
    Note,
    RepeatRecord,
    RunRecord,
    Shape,
    Warned,
)


def test_fields_of_another_version_are_given_back_in_their_order() -> None:
    found = {"digest": "d", "later": {"a": [1, {"b": None}]}, "kind": "train", "key": {"model": "m", "sampling": None}}
    manifest = Manifest.from_json(found, "manifest.json")
    assert json.dumps(manifest.to_json()) == json.dumps(found)
    assert manifest.key.to_json() == {"model": "m", "sampling": None}


def test_what_is_made_by_name_is_written_in_that_order_with_what_is_inside_it() -> None:
    repeats = [RepeatRecord(repeat=1, eval_digest="e2", needs=["t"])]
    names = {"run": "r", "condition": "c", "seed": 1, "eval_digest": "e", "train_digest": "t", "label_digest": None}
    run = RunRecord(**names, status="done", repeats=repeats)
    inside = [{"repeat": 1, "eval_digest": "e2", "needs": ["t"]}]
    assert list(run.to_json().items()) == [*names.items(), ("status", "done"), ("repeats", inside)]


def test_a_changed_manifest_keeps_the_rest() -> None:
    manifest = Manifest(kind="train", digest="d", seed=None, odd="kept").changed(upload="u", files={"model/w": 3})
    assert manifest.has_weights and manifest.upload == "u"
    assert manifest.without("upload").to_json() == {
        "kind": "train",
        "digest": "d",
        "seed": None,
        "odd": "kept",
        "files": {"model/w": 3},
    }


def test_what_is_absent_has_a_value_to_go_on_with() -> None:
    manifest = Manifest(kind="eval", digest="d")
    assert (manifest.machine.gpus, manifest.imported, manifest.key.sampling, manifest.cost) == ([], [], None, None)
    assert (Hypotheses().alpha, Hypotheses().correction, Hypotheses().looks) == (0.05, "holm", None)


@pytest.mark.parametrize("looks", [None, 3, "any"])
def test_looks_are_kept_as_they_were_declared(looks: int | str | None) -> None:
    assert Hypotheses.from_json({"looks": looks}, "here.json").looks == looks


def test_another_shape_is_refused_with_its_place_and_field() -> None:
    with pytest.raises(Broken, match=r"here\.json is broken: events\.0\.text: input should be a valid string"):
        Manifest.from_json({"kind": "eval", "digest": "d", "events": [{"text": 3}]}, "here.json")


def test_a_shape_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Warned(text="hot").text = "cold"  # type: ignore[misc]


def test_a_note_without_a_text_is_an_empty_one() -> None:
    note = Note.from_json({"run": 3, "text": None, "mood": "odd"}, "notes.jsonl")
    assert (note.run, note.written_at, note.text) == ("", "", "")
    assert note.to_json() == {"run": 3, "text": None, "mood": "odd"}


# Whatever else a shape may lack is None.
ABSENT: dict[str, dict[str, object]] = {
    "Machine": {"gpus": []},
    "Served": {"unknown": 0, "unknown_usd": 0.0, "answered_by": [], "reproducible": False},
    "Answered": {"versions": {}, "checked": False},
    "Manifest": {
        **{"key": Key(), "machine": shapes.Machine(), "inputs": {}, "used_by": [], "packages": {}, "events": []},
        **{"shared": {}, "imported": [], "files": {}, "sha256": {}},
    },
    "WordFailure": {"log_end": []},
    "RepeatRecord": {"needs": []},
    "RunRecord": {"needs": [], "repeats": [], "beside": False},
    "Hypotheses": {"alpha": 0.05, "correction": "holm", "claims": []},
    "Note": {"run": "", "written_at": "", "text": ""},
    "Sides": {"a": [], "b": []},
}


def test_what_a_file_does_not_say_is_nothing_in_every_shape() -> None:
    every = [one for one in vars(shapes).values() if isinstance(one, type) and issubclass(one, Shape)]
    assert {one.__name__ for one in every} > set(ABSENT)
    for shape in every:
        may_lack = {name: field for name, field in shape.model_fields.items() if not field.is_required()}
        found = {name: field.get_default(call_default_factory=True) for name, field in may_lack.items()}
        expected = dict.fromkeys(may_lack) | ABSENT.get(shape.__name__, {})
        assert found == expected, shape


def test_a_manifest_that_was_not_read_lies_in_no_folder_of_a_workspace() -> None:
    assert str(Manifest(kind="eval", digest="d").folder) == "."


@pytest.mark.parametrize("counts", [[1], [1, 2, 3], [-1, 2], [3, 2], [0, 0]])
def test_counts_are_how_many_are_right_and_of_how_many(counts: list[int]) -> None:
    with pytest.raises(Broken, match="counts: value error, it should be how many are right, and of how many"):
        Imported.from_json({"run": "r", "counts": counts}, "results.json")


@pytest.mark.parametrize("counts", [[0, 1], [1, 1], [3, 7]])
def test_counts_may_be_none_or_all(counts: list[int]) -> None:
    assert Imported.from_json({"run": "r", "counts": counts}, "results.json").counts == counts


@pytest.mark.parametrize(("names", "whether"), [(["model/w"], True), (["log.txt", "model"], False), ([], False)])
def test_weights_lie_in_the_folder_of_the_model(names: list[str], whether: bool) -> None:
    assert Manifest(kind="train", digest="d", files=dict.fromkeys(names, 1)).has_weights is whether


def test_what_is_no_number_in_json_counts_as_unknown() -> None:
    content = b'{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e999, "e": -1e999, "f": 0.5, "g": 3, "h": [NaN]}'
    unknown = dict.fromkeys("abcde")
    assert shapes.parse_object(content, "here.json") == {**unknown, "f": 0.5, "g": 3, "h": [None]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\x00 \t\r\n", "it is empty"),
        (b"[1]", "it is no JSON object"),
        (b"3", "it is no JSON object"),
        (b'{"a"', r"it is no JSON \(Expecting ':' delimiter"),
        (b'{"a": "\xff"}', r"it is no JSON \('utf-8' codec"),
        (b"[" * 100_000, r"it is no JSON \("),
    ],
)
def test_bytes_that_hold_no_object_are_broken_by_their_place(content: bytes, reason: str) -> None:
    with pytest.raises(Broken, match=f"^here.json is broken: {reason}") as raised:
        shapes.parse_object(content, "here.json")
    assert str(raised.value.path) == "here.json" and raised.value.reason in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "whether"),
    [
        ({"a": "x", "b": "y", "evidence": {"a": ["e"], "b": []}}, True),
        ({"a": "x", "b": "y", "evidence": {"a": [], "b": []}, "train": None}, True),
        ({"a": "x", "b": "y", "evidence": {"a": [], "b": []}, "train": {"a": ["t"], "b": ["u"]}}, True),
        ({"a": "x", "b": "y", "evidence": {"a": [], "b": []}, "train": {"a": ["t"]}}, False),
        ({"a": "x", "evidence": {"a": [], "b": []}}, False),
        ({"a": "x", "b": 3, "evidence": {"a": [], "b": []}}, False),
        ({"a": "x", "b": "y", "evidence": {"a": [], "b": [3]}}, False),
        ({"a": "x", "b": "y", "evidence": {"a": "ab", "b": []}}, False),
        ({"a": "x", "b": "y", "evidence": []}, False),
        ({"a": "x", "b": "y"}, False),
    ],
)
def test_a_look_says_who_was_held_against_whom_and_on_what(entry: dict[str, object], whether: bool) -> None:
    assert shapes.is_look(entry) is whether


def test_an_experiment_was_taken_up_when_it_was_last_run() -> None:
    first = {"experiment": "x", "spec_digest": "d", "question": None, "spec_yaml": "", "resolved": {}, "runs": []}
    first |= {"hypotheses": None, "recorded_at": "2026-01-01T00:00:00"}
    record = shapes.ExperimentRecord.from_json(first, "x.json")
    assert record.taken_up_at == "2026-01-01T00:00:00"
    assert record.changed(run_at="2026-02-01T00:00:00").taken_up_at == "2026-02-01T00:00:00"


def test_a_name_that_leaves_its_folder_is_broken_by_its_place() -> None:
    with pytest.raises(Broken, match=r"^manifest.json is broken: ") as raised:
        Manifest.from_json({"kind": "train", "digest": "../d"}, "manifest.json")
    assert str(raised.value.path) == "manifest.json"


@pytest.mark.parametrize(("settings", "made"), [(None, {"n": 1}), ({"n": 1, "k": 8}, {"n": 1, "k": 8})])
def test_a_stage_is_made_of_its_settings_and_formerly_of_its_key(
    settings: dict[str, int] | None, made: dict[str, int]
) -> None:
    found = Manifest.from_json({"kind": "train", "digest": "d", "key": {"n": 1}, "settings": settings}, "manifest.json")
    assert found.made_of == made
