"""What must not be in a published folder: code, secrets, paths of a machine, texts of the training set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

TEXT_SUFFIXES = (".json", ".jsonl", ".md", ".txt", ".yaml", ".yml", ".jinja", ".cff", "")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
CODE = (".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe", ".js", ".whl")
ALLOWED = (".safetensors", ".onnx", *TEXT_SUFFIXES)
RUN = 12
"""words in a row that show a text to come from the training set"""
_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate")
_SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}", "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    "an OpenAI key": r"\bsk-[A-Za-z0-9_-]{20,}", "an AWS key": r"\bAKIA[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password": r"(?i)(?:password|passwd|secret|api[_-]?key|(?:access|auth)[_-]?token)\w*[\"']?\s*[=:]\s*"
    r"(?!null|none|true|false)[\"']?[^\s\"',}]{6,}",
    "a token in an address": r"https?://[^/\s:@]+:[^/\s:@]+@",
}  # fmt: skip
_PATHS = re.compile(
    r"(?:(?<![\w.:/])/(?:home|root|Users|Volumes|mnt|media|tmp|work|workspaces?|data|datasets|scratch|lustre|gpfs|nfs|srv"
    r"|projects?|content|kaggle|dbfs|var|opt|run)/[\w.\-/]+|\b[A-Z]:\\\\?[\w.\-\\]+)"
)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Finding:
    """Something that must not be published."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def scan(folder: Path, *, training_texts: Iterable[str] = (), paths: bool = True) -> list[Finding]:
    """Everything in ``folder`` that must not be published, in the order of files.

    Args:
        paths: look for paths of a machine, too.
        training_texts: texts of which no run of :data:`RUN` words may stand in a card or a configuration.
    """
    found, texts = list[Finding](), dict[str, str]()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found.append(Finding(name, "is a link"))
        elif path.is_file():
            found += (Finding(name, what) for what in _faults_of_file(path))
            if path.suffix in TEXT_SUFFIXES and path.name not in ("tokenizer.json", "vocab.txt"):
                texts[name] = _read(path)
    for name, text in texts.items():
        found += (Finding(name, what) for what in _secrets(text))
        if paths and (place := _PATHS.search(text)) is not None:
            found.append(Finding(name, f"holds a path of a machine: {place.group()[:60]}"))
    found += _copied(texts, training_texts)
    return found


def _faults_of_file(path: Path) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        yield f"{suffix} files can run code when they are read; weights belong into safetensors"
    elif suffix in CODE:
        yield "is code"
    elif suffix not in ALLOWED:
        yield f"is of a kind that no model needs ({suffix})"
    with open(path, "rb") as stream:
        head = stream.read(2)
    if suffix == ".safetensors":
        if not _is_safetensors(path):
            yield "is no safetensors file"
    elif head == b"PK" or head[:1] == b"\x80":
        yield "is a pickle or an archive, whatever its name"
    if suffix == ".json":
        try:
            value = json.loads(_read(path))
        except ValueError:
            yield "is no JSON"
        else:
            yield from (f"holds {key}, which loads code" for key in _code_keys(value))


def _is_safetensors(path: Path) -> bool:
    """Whether it can be read as one; it begins with a length of any bytes, a pickle's first among them."""
    try:
        with safe_open(path, framework="np"):
            return True
    except SafetensorError:
        return False


def _code_keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _CODE_KEYS and inner not in (None, False, {}, []):
                yield str(key)
            yield from _code_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _code_keys(inner)


def _secrets(text: str) -> Iterator[str]:
    for what, pattern in _SECRETS.items():
        if re.search(pattern, text):
            yield f"holds {what}"


def _copied(texts: dict[str, str], training_texts: Iterable[str]) -> list[Finding]:
    """The first run of words that each file shares with the training set."""
    runs: dict[tuple[str, ...], str] = {}
    for name, text in texts.items():
        for run in _runs(text):
            runs.setdefault(run, name)
    found: dict[str, Finding] = {}
    if not runs:
        return []
    for text in training_texts:
        for run in _runs(text):
            holder = runs.get(run)
            if holder is not None and holder not in found:
                found[holder] = Finding(holder, f"holds text of the training set: {' '.join(run)[:80]!r}")
        if len(found) == len(texts):
            break
    return list(found.values())


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return zip(*(words[start:] for start in range(RUN)), strict=False)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
