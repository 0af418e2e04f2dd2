"""A model's weights for engines and trainers alike: their place, their identity, and their loading.

    resolve("builtin:wordmath-1m")            the folder of the model that ships with the package
    resolve("./my-model"), resolve("org/m")   a local folder (absolute), a hub id as it is
    identity(path, revision, dtype)           what goes into a stage's digest; loads nothing heavy
    load_model(ModelRef(path))                (model, tokenizer), ready to generate

`dtype: auto` is the checkpoint's own type, except on a CPU, where half-precision weights are widened to
float32: exact for the weights, and CPUs without bfloat16 units are many times slower in it. The digest says
"auto" in both cases, so write the dtype out where a CPU and a GPU must not share stages.

`train_dtype` is the type of the weights that a training updates, `dtype` where it is not given. A training saves its
weights in the type in which it held them, so that nothing is lost for the next training, and writes the start's own
type into the `config.json` beside them: that is what `auto` and transformers load, so what was trained is sampled in
the same type as what it was trained from.

Limits: causal language models that transformers knows without remote code. A hub id is only as fixed as its
revision. The commit is not known before the first download, so `identity` of an unpinned hub model changes once, when
the files arrive; `pin` looks the commit up first.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nsd.plugins.api import ModelRef
from nsd.plugins.errors import InputError, MissingExtra, StageFailed

BUILTIN_PREFIX = "builtin:"
EMBEDDED = Path(__file__).parent / "embedded"

# The files that decide what a model computes. Cards, licences, optimizer state and training logs do not.
_DECISIVE = (
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "adapter_model.bin",
    "tokenizer*.json",
    "*.model",
    "*.tiktoken",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_hashes: dict[tuple[str, int, int], str] = {}


# --------------------------------------------------------------------------- where


def resolve(path: str, base_dir: Path | None = None) -> str:
    """Turn a spec's `model` text into what `load_model` takes.

    `builtin:NAME` becomes the packaged folder, a local folder its absolute path (relative to `base_dir`, default
    the working directory), anything else is a hub id and stays as it is. A bare name (`org/model`) is a folder only
    where `base_dir` is given and has it. Raises InputError for an unknown builtin,
    for a missing or unfit folder, and for text that can be neither folder nor hub id.
    """
    if path.startswith(BUILTIN_PREFIX):
        name = path.removeprefix(BUILTIN_PREFIX)
        names = sorted(found.parent.name for found in EMBEDDED.glob("*/config.json"))
        if name not in names:
            raise InputError(f"model {path!r}: no such built-in model (there are: {', '.join(names) or 'none'})")
        return str(EMBEDDED / name)
    folder = (base_dir or Path.cwd()) / Path(path).expanduser()
    looks_local = path.startswith(("./", "../", "/", "~")) or path in (".", "..")
    if folder.is_dir() and (looks_local or (base_dir is not None and (folder / "config.json").is_file())):
        return str(_model_folder(path, folder.resolve()))
    if looks_local:
        raise InputError(f"model {path!r}: there is no folder {folder.resolve()}")
    if not _HUB_ID.fullmatch(path):
        raise InputError(
            f"model {path!r} is neither a folder that exists nor a hub id like Qwen/Qwen2.5-0.5B-Instruct "
            f"nor {BUILTIN_PREFIX}NAME"
        )
    return path


def _model_folder(path: str, folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"model {path!r}: {folder} holds a LoRA adapter, not a model: merge it into its base model and "
            "save that, or name the base model"
        )
    raise InputError(f"model {path!r}: {folder} has no config.json, so it is not a transformers model folder")


def _is_folder(path: str) -> bool:
    return Path(path).is_absolute()


# --------------------------------------------------------------------------- what


def identity(path: str, revision: str | None = None, dtype: str = "auto") -> dict[str, Any]:
    """What decides the model's output, for digests: no path in it, nothing heavy imported.

    Local folders: the sha256 over the names and contents of weight, config and tokenizer files. Hub ids: the id
    and its commit where the local hub cache knows it, else the revision asked for. `path` may still be
    unresolved text of a spec. Raises InputError as `resolve` does.
    """
    path = resolve(path)
    if _is_folder(path):
        return {"sha256": folder_hash(Path(path)), "dtype": dtype}
    return {"hub": path, "revision": _cached_commit(path, revision) or revision or "main", "dtype": dtype}


def folder_hash(folder: Path) -> str:
    """Sha256 over the names and contents of the files in `folder` that decide what its model computes."""
    digest = hashlib.sha256()
    for file in _decisive_files(folder):
        digest.update(f"{file.name}\x1f{_file_hash(file)}\x1e".encode())
    return digest.hexdigest()


def _decisive_files(folder: Path) -> Iterator[Path]:
    yield from sorted(file for file in folder.iterdir() if file.is_file() and any(map(file.match, _DECISIVE)))


def _file_hash(file: Path) -> str:
    status = file.stat()
    key = (str(file), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        with file.open("rb") as opened:
            _hashes[key] = hashlib.file_digest(opened, "sha256").hexdigest()
    return _hashes[key]


def stamp(ref: ModelRef) -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of a local model's files: cheap, and other once somebody has written the folder anew."""
    folders = [Path(place) for place in (ref.path, ref.adapter) if place is not None and _is_folder(place)]
    files = [(file, file.stat()) for folder in folders if folder.is_dir() for file in _decisive_files(folder)]
    return tuple((str(file), status.st_size, status.st_mtime_ns) for file, status in files)


def pin(path: str, revision: str | None = None) -> str | None:
    """The commit of a hub model: from the local cache, else asked from the hub. None for folders.

    Raises InputError where the hub cannot be reached or does not have it, MissingExtra without huggingface_hub.
    """
    path = resolve(path)
    if _is_folder(path):
        return None
    if commit := _cached_commit(path, revision):
        return commit
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "train") from error
    try:
        return str(HfApi().model_info(path, revision=revision).sha)
    except Exception as error:
        raise _load_error(path, revision, error) from error


def _cached_commit(hub_id: str, revision: str | None) -> str | None:
    """The commit that the local hub cache has for a revision, read without huggingface_hub (its layout is public)."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (_cached(hub_id) / "refs" / (revision or "main")).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def snapshot(hub_id: str, revision: str | None = None) -> Path | None:
    """The folder of a hub model's files in the local cache, None where it is not there."""
    commit = _cached_commit(hub_id, revision)
    folder = None if commit is None else _cached(hub_id) / "snapshots" / commit
    return folder if folder is not None and folder.is_dir() else None


def _cached(hub_id: str) -> Path:
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or str(
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    hub = Path(cache).expanduser() if cache else Path(home).expanduser() / "hub"
    return hub / f"models--{hub_id.replace('/', '--')}"


# --------------------------------------------------------------------------- loading


def default_device() -> str:
    """ "cuda" where there is one, else Apple's "mps", else "cpu"."""
    torch = _torch()
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_tokenizer(ref: ModelRef | str) -> Any:
    """The model's tokenizer, padding on the left, with a pad token (the end token where it has none).

    Raises InputError where it cannot be had or has no end token (no completion could end).
    """
    ref = ModelRef(ref) if isinstance(ref, str) else ref
    path = resolve(ref.path)
    transformers = _transformers()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, revision=ref.revision)
    except Exception as error:
        raise _load_error(path, ref.revision, error) from error
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"model {ref.path!r}: its tokenizer has no eos_token, so no completion could end; set one in its "
            "tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _config(ref: ModelRef) -> Any:
    """A checkpoint's config. Raises InputError where it cannot be had."""
    path, transformers = resolve(ref.path), _transformers()
    try:
        return transformers.AutoConfig.from_pretrained(path, revision=ref.revision)
    except Exception as error:
        raise _load_error(path, ref.revision, error) from error


def load_configs(ref: ModelRef) -> tuple[Any, Any]:
    """What a model's folder says of its shape and of its sampling (None where it says nothing of that).

    Raises InputError where the model cannot be had.
    """
    config, transformers = _config(ref), _transformers()
    try:
        return config, transformers.GenerationConfig.from_pretrained(resolve(ref.path), revision=ref.revision)
    except OSError:
        return config, None


def load_model(
    ref: ModelRef, device: str | None = None, trainable: bool = False, attention: str | None = None
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer; returns (model, tokenizer).

    The weights come in `dtype`, or in `train_dtype` where they are `trainable` and it is given (`type_held`). They go
    from the file straight to the device, tensor by tensor. A LoRA adapter is merged into them in main memory, the same
    whatever the device (in their type, so in bfloat16 it is rounded to it), and the sum goes to the device. The model
    comes back in eval mode without gradients, or in train mode with all parameters trainable. `attention` is a
    transformers attention implementation ("sdpa", "eager", ...). Raises InputError where the model cannot be had
    or is damaged, MissingExtra where torch, transformers or peft is not installed, StageFailed with the field to change
    where it does not fit in the device's memory.
    """
    torch, transformers = _torch(), _transformers()
    path, place = resolve(ref.path), _device(torch, device or (ref.device.kind if ref.device else default_device()))
    tokenizer = load_tokenizer(ref)
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if place.type != "cpu" and ref.adapter is None:
        options["device_map"] = {"": place}
        _check_device(torch, ref, place)
    held = _dtype(torch, type_held(ref, place.type, trainable))
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(path, revision=ref.revision, dtype=held, **options)
        if ref.adapter is not None:
            model = _merge_adapter(model, ref.adapter)
            _check_device(torch, ref, place)
            model = model.to(place)
    except torch.OutOfMemoryError as error:
        field = "train_dtype" if trainable else "dtype"
        raise StageFailed(
            f"the weights of model {ref.path!r} do not fit in the memory of {place}: in bfloat16 they take half of "
            f"float32 (model.{field}); else a smaller model, or a GPU with more memory ({_first_line(error)})"
        ) from error
    except Exception as error:
        raise _load_error(path, ref.revision, error) from error
    model.train(trainable)
    model.requires_grad_(trainable)
    return model, tokenizer


def own_type(ref: ModelRef) -> str | None:
    """The type that a checkpoint says it is in, e.g. "bfloat16"; None where it says nothing.

    Raises InputError where its config cannot be had.
    """
    said = _config(ref).get_text_config().dtype
    return None if said is None else str(said).removeprefix("torch.")


def context_length(ref: ModelRef) -> int | None:
    """Tokens that a model reads at most, None where its config says nothing. Raises InputError as `own_type`."""
    found: int | None = getattr(_config(ref).get_text_config(), "max_position_embeddings", None)
    return found


def type_held(ref: ModelRef, kind: str, trainable: bool) -> str:
    """The type of a model's weights in memory on a kind of device: the spec's, else the checkpoint's own.

    "auto" is left where neither says anything: then it is the type of the files. A half-precision type that a device
    has no units for is replaced (`Device.type_in_force`).
    """
    named = (ref.train_dtype if trainable else None) or ref.dtype
    if named == "auto":
        named = "float32" if kind == "cpu" else own_type(ref) or "auto"
    return named if ref.device is None else ref.device.type_in_force(named, trainable)


def _device(torch: Any, name: str) -> Any:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is none: cpu, cuda, cuda:1, mps, ...") from error


def _check_device(torch: Any, ref: ModelRef, place: Any) -> None:
    """Raise InputError where nothing can be put on a device: asked before the loading, whose errors hide it."""
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise InputError(f"model {ref.path!r} could not be moved to {place}: {_first_line(error)}") from error


def _dtype(torch: Any, name: str) -> Any:
    if name == "auto":
        return "auto"
    dtype = getattr(torch, name, None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"model dtype {name!r}: one of auto, float32, bfloat16, float16")
    return dtype


def _merge_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtra("peft", "train") from error
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except Exception as error:
        raise InputError(f"LoRA adapter {adapter!r} could not be applied: {_first_line(error)}") from error


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "train") from error
    return torch


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "train") from error
    transformers.logging.disable_progress_bar()  # nsd shows its own; these would fill a log with bars
    return transformers


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _load_error(path: str, revision: str | None, error: BaseException) -> InputError:
    """Say what went wrong in the person's terms; the hub's errors are told apart by class name along the chain."""
    if isinstance(error, InputError):
        return error
    if _is_folder(path):
        return InputError(f"model folder {path} could not be loaded: {_first_line(error)}")
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {cls.__name__ for one in chain for cls in type(one).__mro__}
    at = f" at revision {revision!r}" if revision else ""
    if "GatedRepoError" in names:
        return InputError(
            f"model {path!r} is gated: accept its terms on https://huggingface.co/{path} and log in with  hf auth login"
        )
    if "RevisionNotFoundError" in names:
        return InputError(f"model {path!r} has no revision {revision!r} on the hub")
    offline = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "ConnectError", "TimeoutException"}
    if names & offline or "connect to" in str(error):
        return InputError(
            f"model {path!r}{at} is not in the local hub cache and the hub cannot be reached (offline, or "
            f"HF_HUB_OFFLINE is set): download it where there is a network with  hf download {path}  or name a "
            "local folder"
        )
    if "RepositoryNotFoundError" in names:
        return InputError(
            f"model {path!r}: the hub has no such public model; check the spelling, log in with  hf auth login  for "
            "a private one, or write ./FOLDER for a local folder"
        )
    return InputError(f"model {path!r}{at} could not be loaded: {_first_line(error)}")
