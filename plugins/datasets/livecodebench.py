r"""`livecodebench`: programming problems of contests with their tests (arXiv 2403.07974), as SDPO's study takes them.

    data: {use: livecodebench, split: {test: 131}}                             # from the hub: test6.jsonl, 134 MB
    data: {use: livecodebench, path: data/livecodebench, split: {test: 131}}   # a folder with such files

Kept are the contests from `start` to before `end`: by default version 6 as arXiv 2601.20802 has it, February to April
2025, 131 questions. There training and evaluation ask the same questions, and the reward sees half of each one's tests:
`train_on: [test_questions]` with `train_verifier: {use: code, tests: train}`. So tests stay with a question that is
trained on without its answer: they are how a program is judged, not the program.

A row has `question_content`, `starter_code`, `contest_date`, `question_id`, `difficulty`, `platform`, both lists of
tests and `metadata` with the function's name. Tests are JSON; the private ones may be base64 of zlib of a pickle of
JSON, which is read by an unpickler that makes a text and nothing else. A program reads stdin and prints, or it is a
function of JSON arguments, a line each. The study judges by the private tests alone; `tests: all` puts the public ones
before them.

`rows` are numbers in the window, from 0, in the order of the files. The published ids of the hard questions (1, 3, 10,
43, ...) are such numbers by the study's code; nobody has verified that: the code cuts the data in four shards and joins
them again, which keeps the order with today's `datasets` and did not always.

Limits: no gold program is known. Lists of tests above 20 kB lie in ~/.cache/nsd/tests as side files. The hub has been
read through local files of its columns alone.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import os
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from nsd.plugins.api import Dataset, DatasetConfig, Pools, Prompt, Question, Shown, SideFile, SpecPath, question_id
from nsd.plugins.datasets.sources import Row, is_local, read_file
from nsd.plugins.durable import write_blocks_atomically
from nsd.plugins.errors import InputError, MissingExtra
from nsd.plugins.registry import plugin

HUB = "livecodebench/code_generation_lite"
PROMPT = (
    "You are a coding expert. You will be given a coding problem, and you need to write a correct Python program that "
    "matches the specification and passes all tests. The time limit is 1 second. You may start by outlining your "
    "thought process. In the end, please provide the complete code in a code block enclosed with ``` ```.\n\n{question}"
)
SIGNATURE = "\n\nYour solution should have the following signature: ```python\n{signature}\n```"
SECONDS = 6.0  # of a test
INLINE = 20_000  # bytes of a list of tests that stands in the question itself
LARGEST = 1 << 30  # bytes of a question's tests, unpacked


@plugin("dataset", "livecodebench")
class LiveCodeBench(Dataset):
    """LiveCodeBench's code generation, from local files or the hub."""

    default_prompt: ClassVar[Prompt] = Prompt(template=PROMPT, chat=True)
    default_verifier: ClassVar[str] = "code"

    class Config(DatasetConfig):
        path: Annotated[str, SpecPath(hub=True)] = Field(
            default=HUB, description="Hub dataset, or a file or folder with the release files."
        )
        files: list[str] = Field(
            default=["test6.jsonl"], min_length=1, description="Release files; test.jsonl to test6.jsonl hold all."
        )
        revision: str | None = Field(default=None, description="Commit or tag on the hub.")
        start: str = Field(default="2025-02-01", description="First day of a contest.")
        end: str = Field(default="2025-05-01", description="The day after the last one.")
        tests: Literal["private", "all"] = Field(
            default="private", description="Tests that judge: the private ones, or the public ones before them as well."
        )
        rows: list[Annotated[int, Field(ge=0)]] | None = Field(
            default=None, min_length=1, description="Numbers of the questions to keep, from 0 within the window."
        )

        @field_validator("start", "end", mode="before")
        @classmethod
        def _a_day(cls, day: object) -> str:
            try:
                return datetime.date.fromisoformat(str(day)).isoformat()
            except ValueError:
                raise ValueError("should be a day like 2025-02-01") from None

        @model_validator(mode="after")
        def _a_window(self) -> LiveCodeBench.Config:
            if self.start >= self.end:
                raise ValueError(f"start: {self.start} is not before end, {self.end}")
            return self

    config: Config

    def pools(self) -> Pools:
        """The questions of the window, from which every split is cut."""
        config = self.config
        rows = [row for file in self._files() for row in read_file(file)]
        kept = [row for row in rows if config.start <= _day(row) < config.end]  # as ISO has them, days sort as texts
        if not kept:
            raise InputError(
                f"{config.path}: none of {len(rows):,} rows is of a contest from {config.start} to before {config.end} "
                f"(files: {', '.join(config.files)})"
            )
        if config.rows is not None:
            if beyond := [number for number in config.rows if number >= len(kept)]:
                raise InputError(
                    f"rows: there is no row {beyond[0]}, the window has {len(kept):,} (0 to {len(kept) - 1})"
                )
            kept = [kept[number] for number in dict.fromkeys(config.rows)]
        return Pools(train=[self._question(row) for row in kept], test=None)

    def shown(self) -> Shown:
        """The tests, without which nobody could judge a program."""
        return Shown(meta=frozenset(("tests", "function", "seconds")))

    def source_files(self) -> list[Path]:
        return self._files() if is_local(self.config.path) else []

    def _files(self) -> list[Path]:
        """The release files, downloaded where they are not here."""
        path = Path(self.config.path).expanduser()
        if not is_local(self.config.path):
            return [_downloaded(self.config.path, name, self.config.revision) for name in self.config.files]
        if path.is_dir():
            return [path / name for name in self.config.files]
        return [path]

    def _question(self, row: Row) -> Question:
        text = row.question("question_content")
        starter = row.text("starter_code", required=False) or ""
        if starter.strip():
            text += SIGNATURE.format(signature=_signature(starter, row))
        function = _function(row)
        found = _tests(row, "private_test_cases", function, public=False)
        if self.config.tests == "all":
            found = _tests(row, "public_test_cases", function, public=True) + found
        if not found:
            raise InputError(f"{row.place}: there is no test, and nothing else to judge a program by")
        meta: dict[str, Any] = {"tests": _carried(found), "seconds": SECONDS}
        if function is not None:
            meta["function"] = function
        for name in ("question_id", "difficulty", "platform"):
            if (value := row.text(name, required=False)) is not None:
                meta[name] = value
        meta["contest_date"] = _day(row)
        return Question(id=question_id(text), text=text, meta=meta, place=row.place)


def _day(row: Row) -> str:
    value = row.get("contest_date")
    try:
        day = value.date() if isinstance(value, datetime.datetime) else datetime.date.fromisoformat(str(value)[:10])
        return day.isoformat()
    except ValueError:
        raise InputError(f"{row.place}: contest_date should be a day like 2025-02-01, it is {value!r:.40}") from None


def _signature(starter: str, row: Row) -> str:
    """The signature that the study shows: from the first `def` to the end, without `self`."""
    _, found, after = starter.partition("def ")
    if not found:
        raise InputError(f"{row.place}: starter_code has no `def`")
    return "def " + after.partition("Input\n")[0].strip().replace("(self, ", "(")


def _function(row: Row) -> str | None:
    """The function that tests call; None for a program."""
    value = row.get("metadata", required=False)
    metadata = _json(value, row, "metadata") if isinstance(value, str) and value.strip() else value or {}
    if not isinstance(metadata, Mapping):
        raise InputError(f"{row.place}: metadata should be a JSON object")
    name = metadata.get("func_name")
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise InputError(f"{row.place}: metadata.func_name should be a function's name, it is {name!r:.40}")
    return name


# --------------------------------------------------------------------------- tests


def _tests(row: Row, field: str, function: str | None, public: bool) -> list[dict[str, Any]]:
    """The tests of a field as the verifier `code` reads them."""
    value = row.get(field)
    listed = _listed(value, row, field) if isinstance(value, str) else value
    if not isinstance(listed, list):
        raise InputError(f"{row.place}: {field} should be a list of tests")
    return [
        {**_test(test, f"{row.place}: {field}, test {number}", function), **({"public": True} if public else {})}
        for number, test in enumerate(listed, start=1)
    ]


def _test(test: Any, place: str, function: str | None) -> dict[str, Any]:
    if not isinstance(test, Mapping) or not all(isinstance(test.get(key), str) for key in ("input", "output")):
        raise InputError(f"{place} should have the texts `input` and `output`")
    kind = test.get("testtype", "stdin")
    if kind == "stdin":
        return {"kind": "stdin", "input": test["input"], "output": test["output"]}
    if kind != "functional":
        raise InputError(f"{place}: testtype should be stdin or functional, it is {kind!r:.40}")
    if function is None:
        raise InputError(f"{place} calls a function, and metadata has no func_name")
    try:
        given = [json.loads(line) for line in test["input"].split("\n") if line.strip()]
        return {"kind": "functional", "input": given, "output": json.loads(test["output"])}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON, one argument a line: {error}") from None


def _listed(text: str, row: Row, field: str) -> Any:
    """JSON, or base64 of zlib of a pickled text of JSON."""
    if text.lstrip().startswith("["):
        return _json(text, row, field)
    try:
        packed = base64.b64decode(text, validate=True)
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(packed, LARGEST)
        if unpacking.unconsumed_tail:
            raise ValueError(f"more than {LARGEST:,} bytes")
        if not unpacking.eof:
            raise ValueError("it ends too early")
        unpickled = _TextAlone(io.BytesIO(content)).load()
        if not isinstance(unpickled, str):
            raise pickle.UnpicklingError(f"it holds a {type(unpickled).__name__} where a text belongs")
    except Exception as error:  # what is torn makes an unpickler raise a dozen kinds
        raise InputError(
            f"{row.place}: {field} is neither JSON nor base64 of zlib of a pickled text ({error})"
        ) from None
    return _json(unpickled, row, field)


class _TextAlone(pickle.Unpickler):
    """Makes no object of any class, so that nothing in a file of strangers is run."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object elsewhere")


def _json(text: str, row: Row, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{row.place}: {field} is not JSON: {error}") from None


def _carried(tests: list[dict[str, Any]]) -> list[dict[str, Any]] | SideFile:
    """The tests themselves where they are few; else a side file, named by its content and written once."""
    content = json.dumps(tests, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(content) <= INLINE:
        return tests
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nsd" / "tests"
    path = cache / f"{hashlib.sha256(content).hexdigest()}.json"
    try:
        if not path.is_file() or path.stat().st_size != len(content):
            write_blocks_atomically(path, [content])
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a folder that can"
        ) from None
    return SideFile.of(path)


def _downloaded(repository: str, name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingExtra("huggingface_hub", "train") from None
    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset", revision=revision))
    except Exception as error:  # the library raises a dozen kinds for a wrong name, no network, no such file
        first_line = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"cannot load {name!r} of {repository!r} from the hub: {type(error).__name__}: {first_line}\n"
            "without a network, give a local folder or file as the path"
        ) from error
