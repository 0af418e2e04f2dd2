"""Reads rows from local files (JSON lines, JSON, CSV, Parquet) or from the Hugging Face hub.

    rows = read("data/train.jsonl", split="train")        # a file
    rows = read("data/gsm8k", split="train")              # a folder with train.jsonl, or train-*.parquet, ...
    rows = read("openai/gsm8k", split="train", subset="main")   # a hub dataset, through the `datasets` library

Rows come one after the other, and are held by whoever wants to. Every row knows its place (file and line), and every
complaint names it. No row is skipped here; only blank lines
are. A relative path given from Python counts from the current folder; a spec hands over absolute ones.

A number keeps its value: 0.00001 is read as `0.00001` and 1e22 with all its digits, never as `1e-05` or `1e+22`. An
answer, solution or context that is null, empty or blank, a NaN, or one of the words of `NO_ANSWER` is not there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from nsd.plugins import registry
from nsd.plugins.api import Dataset, DatasetConfig, NestedPlugin, Pools, Question, Shown
from nsd.plugins.errors import InputError, MissingExtra
from nsd.plugins.large import collected
from nsd.plugins.words import hint

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
# What tables write where nothing is known, spelled just so: `Na` is sodium and `none` may be an answer.
NO_ANSWER = frozenset(("NA", "na", "N/A", "n/a", "#N/A", "#NA", "<NA>", "null", "Null", "NULL", "None")) | frozenset(
    ("NaN", "nan", "NAN", "-nan", "-NaN", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND")  # as C prints it, too
)
SHOWN_MISSING = 5
BATCH = 4096  # rows of a Parquet file that are read at a time
MOST_DIGITS = 1000  # of a number written with an exponent, which would be as many characters


Read = tuple[Sequence[Question], tuple[str, ...]]  # questions, and notes on their rows


class SourceConfig(DatasetConfig):
    """What every dataset that reads files or the hub can be told."""

    missing_answer: Literal["keep", "drop"] = Field(
        default="keep",
        description="Rows without a gold answer: kept (nothing scores as correct on them), or left out and counted.",
    )
    unlabeled_from: Annotated[dict[str, Any], NestedPlugin("dataset")] | None = Field(
        default=None,
        description="Another dataset block ({use: NAME, ...}); its train rows replace this one's unlabeled pool.",
    )

    @field_validator("unlabeled_from")
    @classmethod
    def _known_dataset(cls, block: dict[str, Any] | None) -> dict[str, Any] | None:
        if block is not None:
            if not isinstance(block.get("use"), str):
                raise InputError("needs `use:` with the name of a dataset")
            if "split" in block:
                raise InputError("takes no `split:`, only the outer dataset is split")
            # Checking a config runs nobody's file: of such a block the spec's reader knows more.
            if not registry.is_path(block["use"]):
                _other_dataset(block)
        return block


def _other_dataset(block: Mapping[str, Any]) -> Dataset:
    from pydantic import ValidationError

    plugin_class = registry.find("dataset", block["use"])
    try:
        config = plugin_class.Config.model_validate({key: value for key, value in block.items() if key != "use"})
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError("; ".join(problems)) from None
    dataset = plugin_class(config)
    assert isinstance(dataset, Dataset)
    return dataset


def with_unlabeled(pools: Pools, config: SourceConfig) -> Pools:
    """The pools, with the unlabeled pool of `config.unlabeled_from` where there is one."""
    if config.unlabeled_from is None:
        return pools
    other = _other_dataset(config.unlabeled_from).pools()
    return Pools(train=pools.train, test=pools.test, unlabeled=other.train, notes=pools.notes + other.notes)


def train_and_test(
    config: SourceConfig,
    rows: Callable[[str], Iterable[Row]],
    questions: Callable[[Iterable[Row]], Read],
    train: bool = True,
) -> Pools:
    """The questions of both splits; without `train` those of the test split alone, from which all is then cut.

    `rows` reads a split by its name.
    """
    if not train:
        found, notes = questions(rows("test"))
        return with_unlabeled(Pools(train=found, test=None, notes=notes), config)
    found, notes = questions(rows("train"))
    test, more = questions(rows("test"))
    return with_unlabeled(Pools(train=found, test=test, notes=notes + more), config)


def shown_of(config: SourceConfig, own: Shown) -> Shown:
    """What the unlabeled questions show: `own`, or what `config.unlabeled_from` shows where they are of that."""
    return own if config.unlabeled_from is None else _other_dataset(config.unlabeled_from).shown()


# --------------------------------------------------------------------------- rows


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands: `train.jsonl:12`. `folder` is that of the file, None for a row of the hub."""

    place: str
    values: Mapping[str, Any]
    folder: Path | None = None

    def get(self, name: str, required: bool = True) -> Any:
        """A field's value; `a.b` and `a.0` reach into objects and lists, and into null, which holds null.

        InputError where it does not exist.
        """
        if name in self.values:
            return self.values[name]
        value: Any = self.values
        for part in name.split("."):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            elif value is None:
                return None
            elif required:
                raise InputError(f"{self.place}: no field {name!r}{self._hint(name)}")
            else:
                return None
        return value

    def text(self, name: str, required: bool = True) -> str | None:
        """A field as text; a number as a plain decimal of its whole value, null and NaN as None."""
        value = self.get(name, required)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, float | Decimal):
            number = Decimal(repr(value)) if isinstance(value, float) else value
            return None if number.is_nan() else plain(number)
        raise InputError(f"{self.place}: field {name!r} should be text or a number, it is {type(value).__name__}")

    def known(self, name: str, required: bool = True) -> str | None:
        """A field that a row may have nothing in, as text; None where it has nothing (see `known`)."""
        return known(self.text(name, required))

    def question(self, name: str) -> str:
        """A field that must hold text."""
        text = self.text(name)
        if text is None or not text.strip():
            raise InputError(f"{self.place}: field {name!r} is empty, a question is needed there")
        return text

    def _hint(self, name: str) -> str:
        names = [str(key) for key in self.values]
        return f"{hint(name, names)} (the row has: {', '.join(names) or 'nothing'})"


def known(text: str | None) -> str | None:
    """The text, None where it says that there is none: blank, or one of `NO_ANSWER`. The one place that decides it."""
    return None if text is None or not text.strip() or text.strip() in NO_ANSWER else text


def number(text: str) -> Decimal | str:
    """A number of a JSON file at its whole value; its text where the exponent is beyond what a Decimal takes."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


_DECODER = json.JSONDecoder(parse_float=number)


def plain(number: Decimal) -> str:
    """A number with all its digits and no exponent; as it stands where that would be over `MOST_DIGITS` characters."""
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or max(abs(number.adjusted()), abs(exponent)) > MOST_DIGITS:
        return str(number)
    return format(number, "f")


def read(path: str, split: str, subset: str | None = None, revision: str | None = None) -> Iterator[Row]:
    """Rows of a local file, of a split in a local folder, or of a hub dataset's split, one after the other."""
    if not is_local(path):
        return _read_hub(path, split, subset, revision)
    files = split_files(path, split, subset)
    if not files:
        raise InputError(f"{path}: no rows for {split!r} there, wanted {split}.jsonl (or .json, .csv, .parquet)")
    return chain.from_iterable(map(read_file, files))


def is_local(path: str) -> bool:
    """Whether a name is a place on disk; one like `owner/name` is a hub dataset, whatever the current folder holds."""
    return path.startswith((".", "/", "~")) or Path(path).suffix in SUFFIXES


def split_files(place: str, split: str, subset: str | None = None, got_from: str = "") -> list[Path]:
    """Files of a split: the path itself, or within a folder `train.jsonl`, `train-*.parquet`, also under `subset`.

    Raises InputError where the place is not there, which ends in where such data are `got_from`.
    """
    path = Path(place).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        wanted = f"Put the rows there, a folder with {split}.jsonl (or .json, .csv, .parquet)"
        raise InputError(f"{path.absolute()}: there is no such file or folder. {wanted}{got_from and f': {got_from}'}")
    for folder in [path / subset, path, path / "data"] if subset else [path, path / "data"]:
        for suffix in SUFFIXES:
            if (single := folder / f"{split}{suffix}").is_file():
                return [single]
            if pieces := sorted(folder.glob(f"{split}-*{suffix}")):
                return pieces
    return []


def local_files(path: str, splits: tuple[str, ...], subset: str | None = None) -> list[Path]:
    """Every local file that `read` would open, [] for a hub dataset."""
    if not is_local(path):
        return []
    return [file for split in splits for file in split_files(path, split, subset)]


def read_file(path: Path) -> Iterator[Row]:
    """Rows of one file, by its suffix, one after the other."""
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _json_lines,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    if path.suffix not in readers:
        raise InputError(f"{path}: cannot read a {path.suffix or 'file without suffix'}, only {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path.absolute()}: there is no such file")
    return readers[path.suffix](path)


def _json_lines(path: Path) -> Iterator[Row]:
    name, folder = str(path), path.parent
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{name}:{number}"
                yield _object(_parse(line, place), place, folder)


def _json(path: Path) -> Iterator[Row]:
    content = path.read_bytes()
    if not content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        yield from _json_lines(path)  # many published .json files are JSON lines
        return
    for number, value in enumerate(_parse(content, str(path)), start=1):
        yield _object(value, f"{path} item {number}", path.parent)


def _parse(content: bytes, place: str) -> Any:
    try:
        return _DECODER.decode(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON: {error}") from None


def _object(value: Any, place: str, folder: Path) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{place}: a row should be an object with fields, it is {type(value).__name__}")
    return Row(place, value, folder)


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for values in reader:
                place = f"{path}:{reader.line_num}"
                if None in values or None in values.values():
                    raise InputError(f"{place}: the row has not as many cells as the header")
                yield Row(place, values, path.parent)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}:{reader.line_num + 1}: not CSV: {error}") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                for values in _at_their_width(batch.to_pylist(), batch.schema):
                    number += 1
                    yield Row(f"{path} row {number}", values, path.parent)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not Parquet: {error}") from None


def _at_their_width(rows: Iterable[dict[str, Any]], schema: pyarrow.Schema) -> Iterator[dict[str, Any]]:
    """Rows whose 32- and 16-bit numbers, at any depth, have the value that their shortest text says.

    As a Python float 123.45 in 32 bits is 123.44999694824219.
    """
    narrow = [column for column in schema if _holds_narrow(column.type)]
    return ({**row, **{column.name: _widened(row[column.name], column.type) for column in narrow}} for row in rows)


def _holds_narrow(kind: pyarrow.DataType) -> bool:
    import pyarrow

    if pyarrow.types.is_dictionary(kind):
        return _holds_narrow(kind.value_type)
    if pyarrow.types.is_float32(kind) or pyarrow.types.is_float16(kind):
        return True
    return any(_holds_narrow(kind.field(place).type) for place in range(kind.num_fields))


def _widened(value: Any, kind: pyarrow.DataType) -> Any:
    import pyarrow

    if value is None or not _holds_narrow(kind):
        return value
    if pyarrow.types.is_dictionary(kind):
        return _widened(value, kind.value_type)
    if isinstance(value, float):
        return float(str(kind.to_pandas_dtype()(value)))
    if isinstance(value, dict):
        inside = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
        return {name: _widened(one, inside[name]) for name, one in value.items()}
    if isinstance(value, list) and not pyarrow.types.is_map(kind):
        return [_widened(one, kind.value_type) for one in value]
    return value


def _read_hub(name: str, split: str, subset: str | None, revision: str | None) -> Iterator[Row]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingExtra("datasets", "train") from None
    try:
        rows = load_dataset(name, subset, split=split, revision=revision)
    except Exception as error:  # the library raises a dozen kinds for a wrong name, no network, a wrong split
        first_line = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"cannot load {name!r} (split {split!r}) from the hub: {type(error).__name__}: {first_line}\n"
            "without a network, give a local folder or file as the path"
        ) from error
    found = _at_their_width(rows, rows.features.arrow_schema)
    return (Row(f"{name}[{split}] row {number}", row) for number, row in enumerate(found, start=1))


def to_questions(
    rows: Iterable[Row],
    make: Callable[[Row], Question],
    config: SourceConfig,
    wanted: Callable[[Question], bool] = lambda question: True,
) -> Read:
    """Questions of rows, and a note on those without a gold answer, which stay or go by `missing_answer`.

    Of those `wanted` says which are kept. What is too much to hold is kept in a file (plugins/large.py).
    """
    missing: list[str] = []
    lacking = 0

    def questions() -> Iterator[Question]:
        nonlocal lacking
        for row in rows:
            question = make(row)
            if question.answer is None:
                lacking += 1
                if len(missing) < SHOWN_MISSING:
                    missing.append(row.place)
                if config.missing_answer == "drop":
                    continue
            if wanted(question):
                yield replace(question, place=row.place)

    kept = collected(questions())
    if not lacking:
        return kept, ()
    count = "1 row" if lacking == 1 else f"{lacking:,} rows"
    shown = ", ".join(missing) + (", ..." if lacking > len(missing) else "")
    what = "left out, without a gold answer" if config.missing_answer == "drop" else "without a gold answer"
    return kept, (f"{count} {what}: {shown}",)
