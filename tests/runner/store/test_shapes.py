"""Shapes of what lies on disk: what is written as it was read, what may lack, and what is refused with its place."""

from __future__ import annotations

import json

import pytest

from nsd.runner.store.shapes import Broken, Hypotheses, Manifest, Note, RepeatRecord, RunRecord, Warned


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
