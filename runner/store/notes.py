"""Notes: what people decided or learned about a run or an experiment, dated, in their own words.

    add_note(workspace, "quickstart", "dropped: the filter costs coverage and gains nothing")

The truth is notes.jsonl in the workspace, which is only ever added to; the index has it as the table `notes`.

Limits: a note is attached to a name; which version of an experiment it speaks of follows from its date.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from nsd.plugins.errors import InputError
from nsd.plugins.untrusted import one_line
from nsd.plugins.words import hint
from nsd.runner.store import journal
from nsd.runner.store.shapes import ExperimentRecord, Note
from nsd.runner.store.workspace import Workspace, now


def add_note(workspace: Workspace, name: str, text: str) -> Note:
    """Attach a note, dated now, to a run or an experiment (also an imported run); returns it.

    Raises InputError for an empty text, for a name that nothing here has (with the nearest ones), and where the
    workspace cannot be written.
    """
    from nsd.runner.store.index import Store

    if not text.strip():
        raise InputError('the note is empty: say what was decided, as in nsd note quickstart "keep the filter"')
    names = [name for record in workspace.records() for name in _names_of(record)]
    names += [run.run for manifest in workspace.manifests("import") for run in manifest.imported]
    names = list(dict.fromkeys(names))
    if name not in names:
        raise InputError(f"no run or experiment {one_line(name)!r}{nearest(name, names)}")
    # A shell may hand over bytes that are no text; they have no JSON form.
    note = Note(run=name, written_at=now(), text=text.strip().encode("utf-8", "replace").decode())
    try:
        journal.append(workspace.notes, [note.to_json()])
    except OSError as error:
        raise InputError(f"cannot write {workspace.notes}: {error.strerror or error}") from error
    # The file is the truth; an index that is busy too long is brought up to date by the next writer.
    with contextlib.suppress(Exception):
        Store(workspace).index_journals()
    return note


def read_notes(workspace: Workspace) -> list[Note]:
    """Every note, oldest first."""
    return [Note.from_json(entry, workspace.notes) for entry in journal.read(workspace.notes)]


def _names_of(record: ExperimentRecord) -> list[str]:
    return [record.experiment, *(run.run for run in record.runs)]


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of an error message about an unknown name: the nearest ones, else where to find them."""
    otherwise = "; `nsd log` and `nsd runs` list what there is" if names else ": nothing was run in this workspace yet"
    return hint(name, names, otherwise, most=3)
