"""Reads the logs of inspect, for `runner/work/imports/formats.py`: an `.eval` file, which is a zip, or one of JSON.

A sample becomes a row: id, epoch, input and target as text, the completion and why it ended, `scores` by scorer (a
number, or an object of numbers), `metadata`, and `finish: error` where the sample failed. As inspect reads them, C and
yes are 1, P is a half, I and no are 0; N, that the model gave no answer, is null here, which counts as wrong.

Source: the log format that inspect documents (its "Eval Logs"), and files of version 2. inspect itself is not needed.
Newer ones compress their zip by zstd, which Python 3.11 cannot read in a zip: pyarrow takes that apart.
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError
from nsd.runner.work.imports.files import MOST_DIGITS, Number, Table, first_bytes, whole_json

ZSTD = 93  # the zip format's number of it
MOST_BYTES = 2**30  # of one sample
DAMAGED = (zlib.error, lzma.LZMAError, UnicodeDecodeError)
_WORDS = {"C": "1", "I": "0", "P": "0.5", "N": None}
_WORDS |= {"yes": "1", "true": "1", "no": "0", "false": "0"}
_ENDS = {"stop": "stop", "tool_calls": "stop", "max_tokens": "length", "model_length": "length"}
_ENDS |= {"content_filter": "error"}


def looks_like_inspect(start: bytes) -> bool:
    """Whether a file that begins so is a log of inspect."""
    if start.startswith(b"PK\x03\x04"):
        return True
    line, _, rest = start.partition(b"\n")
    one_object = line.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")  # JSON lines
    parts = (rb'"version"\s*:\s*\d', rb'"status"\s*:\s*"', rb'"eval"\s*:\s*\{')
    return start.startswith(b"{") and not one_object and all(re.search(part, start) for part in parts)


@dataclass(frozen=True)
class Log:
    """A row for each sample of each epoch, epoch by epoch in the order of the dataset; how many questions have none;
    the means that the log itself states, by scorer or `scorer.value`; and what else is to be known of it.
    """

    table: Table
    missing: int
    stated: Mapping[str, float]
    notes: Sequence[str]


def read_inspect(path: Path) -> Log:
    """The samples of a log. Raises InputError."""
    if first_bytes(path, 4) == b"PK\x03\x04":
        header, samples = _of_zip(path)
    else:
        log = whole_json(path.read_bytes(), str(path))
        if not isinstance(log, dict) or not isinstance(log.get("eval"), dict):
            raise InputError(f"{path}: no log of inspect: it has no `eval`")
        drawn = log.get("samples") or []
        if not isinstance(drawn, list):
            raise InputError(f"{path}: its `samples` are a {type(drawn).__name__}, not a list")
        header, samples = log, list(enumerate(drawn, 1))
    rows = [(number, _row(path, number, sample)) for number, sample in samples]
    if not rows:
        raise InputError(f"{path} has no samples (its status is {header.get('status', 'unknown')}): nothing to import")
    about = header.get("eval")
    dataset = about.get("dataset") if isinstance(about, dict) else None
    planned = dataset.get("sample_ids") if isinstance(dataset, dict) else None
    places = {str(one): place for place, one in enumerate(planned)} if isinstance(planned, list) else {}
    # In a zip they lie in the order in which they ended, which is another one at every run.
    rows.sort(key=lambda row: (int(row[1]["epoch"]), places.get(str(row[1]["id"]), len(places))))
    missing = len(places.keys() - {str(row["id"]) for _, row in rows})
    return Log(Table(path, rows, "sample"), missing, _stated(header), _notes(header, samples))


def _stated(header: Mapping[str, Any]) -> dict[str, float]:
    """The means over epochs and questions; other reducers and metrics are of another kind."""
    results = header.get("results")
    scores = results.get("scores") if isinstance(results, dict) else None
    found: dict[str, float] = {}
    for score in scores if isinstance(scores, list) else ():
        if not isinstance(score, dict) or score.get("reducer") not in (None, "mean"):
            continue
        name, scorer, metrics = score.get("name"), score.get("scorer"), score.get("metrics")
        for metric in ("accuracy", "mean"):
            of = metrics.get(metric) if isinstance(metrics, dict) else None
            value = of.get("value") if isinstance(of, dict) else None
            if isinstance(value, Number):
                found.setdefault(str(scorer if name == scorer else f"{scorer}.{name}"), float(value))
    return found


def _notes(header: Mapping[str, Any], samples: Sequence[tuple[int, Any]]) -> list[str]:
    status = header.get("status")
    notes = [] if status in ("success", None) else [f"UNFINISHED: the log's status is {str(status)[:40]!r}"]
    invalid = sum(bool(one.get("invalidation")) for _, one in samples if isinstance(one, dict))
    return [*notes, f"{invalid} samples are marked invalid in the log"] if invalid else notes


def _of_zip(path: Path) -> tuple[dict[str, Any], list[tuple[int, Any]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {info.filename: info for info in archive.infolist()}
            header = {}
            # A log that is still being written, or was broken off, has the start in its journal alone.
            for name in ("header.json", "_journal/start.json"):
                if name in parts:
                    header = whole_json(_content(path, archive, parts[name]), f"{path}: {name}")
                    break
            if not isinstance(header, dict) or "eval" not in header:
                raise InputError(f"{path}: a zip file, and no log of inspect: it has no header.json")
            names = [name for name in parts if name.startswith("samples/") and name.endswith(".json")]
            samples = [whole_json(_content(path, archive, parts[name]), f"{path}: {name}") for name in names]
    except (zipfile.BadZipFile, *DAMAGED, struct.error, EOFError, OSError, RuntimeError) as error:
        raise InputError(
            f"{path}: not a whole zip file ({error}): it was cut off, or is still being written"
        ) from error
    return header, list(enumerate(samples, 1))


def _content(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MOST_BYTES:
        raise InputError(f"{path}: {info.filename} has {info.file_size:,} bytes, more than {MOST_BYTES:,}")
    if info.compress_type != ZSTD:
        try:
            return archive.read(info)
        except NotImplementedError as error:
            raise InputError(f"{path}: {info.filename} is compressed in a way that cannot be read ({error})") from error
    import pyarrow

    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)  # of which the last four bytes are the lengths of name and extra field
        name, extra = struct.unpack("<HH", local[26:30])
        file.seek(name + extra, 1)
        packed = file.read(info.compress_size)
    with pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd") as stream:
        content: bytes = stream.read(MOST_BYTES)
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise InputError(f"{path}: {info.filename} is damaged: its content does not match its checksum")
    return content


def _row(path: Path, number: int, sample: Any) -> dict[str, Any]:
    place = f"{path}: sample {number}"
    if not isinstance(sample, dict) or "id" not in sample or "epoch" not in sample:
        raise InputError(f"{place}: no sample of inspect: it has no id and epoch")
    epoch = str(sample["epoch"])
    if not epoch.isdecimal() or len(epoch) > MOST_DIGITS:
        raise InputError(f"{place}: the epoch is {epoch[:40]!r}, not a whole number of a sample")
    output = sample.get("output")
    output = output if isinstance(output, dict) else {}
    choices = output.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    ended = first.get("stop_reason") if isinstance(first, dict) else None
    scores = sample.get("scores") or {}
    if not isinstance(scores, dict):
        raise InputError(f"{place}: its scores are a {type(scores).__name__}, not one value for each scorer")
    target = sample.get("target")
    return {
        "id": sample["id"],
        "epoch": epoch,
        "input": message_text(sample.get("input")),
        "target": target[0] if isinstance(target, list) and len(target) == 1 else target,
        "completion": output.get("completion"),
        "finish": "error" if sample.get("error") else _ENDS.get(str(ended)),
        "scores": {name: _value(place, name, one) for name, one in scores.items()},
        "metadata": sample.get("metadata") or {},
    }


def _value(place: str, scorer: str, score: Any) -> Any:
    value = score.get("value") if isinstance(score, dict) else score
    if isinstance(value, dict):
        return {name: _number(one) for name, one in value.items()}
    if isinstance(value, list):
        raise InputError(f"{place}: the scorer {scorer!r} gave a list: only a number, or several by name, are read")
    return _number(value)


def _number(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Number):
        return _WORDS.get(value, _WORDS.get(value.lower(), value))
    return value


def message_text(prompt: Any) -> str | None:
    """A prompt's text: as it stands, or the texts of its messages, one below the other."""
    if prompt is None or isinstance(prompt, str):
        return prompt
    if isinstance(prompt, dict):
        if "content" in prompt:
            return message_text(prompt["content"])
        return prompt.get("text") if isinstance(prompt.get("text"), str) else None
    texts = [message_text(one) for one in prompt] if isinstance(prompt, list) else []
    return "\n".join(text for text in texts if text) or None
