"""``data build``: a recipe of sources to a folder with ``train.jsonl.gz``, ``heldout.jsonl.gz`` and a report."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from diffutron.corpus.curate import CurationReport, curate
from diffutron.corpus.document import Document, text_digest
from diffutron.corpus.read import Fault, files_of, read_records
from diffutron.errors import DataError
from diffutron.recipe import Settings
from diffutron.text import normalise


class SourceSettings(Settings):
    """One source of texts: a file or folder, or a data set on the hub."""

    path: Path | None = None
    """A file or folder of JSONL(.gz), txt(.gz) or parquet."""
    hub: str | None = None
    """A data set's id on the Hugging Face hub, read as a stream."""
    config: str | None = None
    """The hub data set's configuration, e.g. 20231101.tr."""
    revision: str | None = None
    """The hub data set's revision; name one to be able to repeat the build."""
    split: str = "train"
    """The hub data set's split."""
    text_field: str = "text"
    """The field that holds the text."""
    name: str | None = None
    """What reports call the source; its path or id unless named."""
    license: str | None = None
    """Licence of records that state none."""
    domain: str | None = None
    """Domain of records that state none, e.g. news."""
    where: dict[str, list[str]] = Field(default_factory=dict)
    """Keep only records whose field has one of these values."""
    exclude: dict[str, list[str]] = Field(default_factory=dict)
    """Leave out records whose field has one of these values."""
    sample: float = Field(default=1.0, gt=0, le=1)
    """Share of documents to keep, chosen by a hash of the text."""
    max_documents: int | None = Field(default=None, ge=1)
    """Stop after so many records of the source, those filtered out included."""

    @model_validator(mode="after")
    def _one_place(self) -> SourceSettings:
        if (self.path is None) == (self.hub is None):
            raise ValueError("a source needs either a path or a hub id")
        return self

    @property
    def label(self) -> str:
        return self.name or self.hub or str(self.path)


class CorpusSettings(Settings):
    """Where texts come from, which of them stay, and how many are held out."""

    sources: list[SourceSettings] = Field(min_length=1)
    """The sources, read in this order; of two equal texts the first stays."""
    min_characters: int = Field(default=40, ge=1)
    """Shorter texts are near-empty and dropped."""
    max_characters: int | None = Field(default=None, ge=1)
    """Longer texts are dropped."""
    heldout_share: float = Field(default=0.01, ge=0, lt=1)
    """Share of documents kept out of training."""
    seed: int = Field(default=0, ge=0)
    """Chooses samples and the split."""


@dataclass(frozen=True)
class BuiltCorpus:
    """A finished folder: its files and what its report counts."""

    folder: Path
    report: dict[str, Any]

    @property
    def train(self) -> Path:
        return self.folder / "train.jsonl.gz"

    @property
    def heldout(self) -> Path:
        return self.folder / "heldout.jsonl.gz"


def build_corpus(
    settings: CorpusSettings, out: Path, *, on_progress: Callable[[CurationReport], None] = lambda _: None
) -> BuiltCorpus:
    """Read, clean, deduplicate and split; the folder appears in one rename.

    Raises:
        DataError: a source is missing, nothing is left, the disk refuses, or ``out`` exists and is not a corpus.
    """
    out = Path(out)
    if out.exists() and not (out / "report.json").is_file():
        raise DataError(f"{out} exists and is not a corpus; choose another folder")
    draft = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.tmp"
    report, faults = CurationReport(), list[Fault]()

    def on_fault(fault: Fault) -> None:
        faults.append(fault)
        report.read += 1
        report.drop("broken record")

    # Look before a long read: a missing last source should not cost an hour.
    for source in settings.sources:
        if source.path is not None:
            files_of(source.path)
    try:
        draft.mkdir(parents=True)
        documents = curate(
            _documents(settings, report, on_fault), report,
            min_characters=settings.min_characters, max_characters=settings.max_characters,
        )  # fmt: skip
        counts = _write_split(documents, draft, settings, report, on_progress)
        if report.kept == 0:
            raise DataError(
                f"no document is left of {report.read} read: {dict(report.dropped) or 'the sources are empty'}"
            )
        summary = {
            **report.as_dict(),
            **counts,
            "fingerprint": _fingerprint(draft),
            "recipe": settings.model_dump(mode="json"),
        }
        (draft / "report.json").write_text(json.dumps(summary, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        with open(draft / "quarantine.jsonl", "w", encoding="utf-8") as quarantine:
            for fault in faults:
                quarantine.write(json.dumps({"place": fault.place, "reason": fault.reason}, ensure_ascii=False) + "\n")
        _replace(out, draft)
    except OSError as error:
        raise DataError(f"corpus {out} could not be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return BuiltCorpus(out, summary)


def open_corpus(folder: Path) -> BuiltCorpus:
    """A folder that ``data build`` made.

    Raises:
        DataError: there is no such corpus.
    """
    try:
        return BuiltCorpus(folder, json.loads((folder / "report.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise DataError(
            f"{folder} is not a corpus; make it with `diffutron data build RECIPE --out {folder}`"
        ) from None


def _documents(
    settings: CorpusSettings, report: CurationReport, on_fault: Callable[[Fault], None]
) -> Iterator[Document]:
    for source in settings.sources:
        for place, record in itertools.islice(_records(source, on_fault), source.max_documents):
            if not _matches(record, source):
                report.read += 1
                report.drop("not asked for")
                continue
            text = record.get(source.text_field)
            if not isinstance(text, str):
                on_fault(Fault(place, f"has no text in the field {source.text_field!r}"))
                continue
            text = normalise(text)
            if source.sample < 1 and _uniform(text, settings.seed, "sample") >= source.sample:
                report.read += 1
                report.drop("not in the sample")
                continue
            yield Document(
                text=text, place=place, source=source.label,
                license=str(record.get("license") or source.license or ""),
                domain=str(record.get("domain") or source.domain or ""),
            )  # fmt: skip


def _records(source: SourceSettings, on_fault: Callable[[Fault], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    if source.path is not None:
        for file in files_of(source.path):
            yield from read_records(file, on_fault)
        return
    assert source.hub is not None
    try:
        from datasets.load import load_dataset
    except ImportError:
        raise DataError("reading from the hub needs: pip install 'diffutron[data]'") from None
    try:
        rows = load_dataset(source.hub, source.config, split=source.split, revision=source.revision, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield f"{source.hub}:{number}", dict(row)
    except Exception as error:  # datasets raises a dozen kinds, from httpx's to its own
        line = " ".join(str(error).split())[:160]
        raise DataError(f"data set {source.hub} cannot be read from the hub: {line}") from None


def _matches(record: dict[str, Any], source: SourceSettings) -> bool:
    wanted = all(record.get(key) in values for key, values in source.where.items())
    return wanted and not any(record.get(key) in values for key, values in source.exclude.items())


def _uniform(text: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) that belongs to (text, seed, purpose): the same on every machine and in any order."""
    key = hashlib.sha256(f"{purpose}:{seed}:{text_digest(text)}".encode()).digest()
    return int.from_bytes(key[:8], "little") / 2**64


def _write_split(
    documents: Iterator[Document], folder: Path, settings: CorpusSettings,
    report: CurationReport, on_progress: Callable[[CurationReport], None],
) -> dict[str, int]:  # fmt: skip
    counts = {"train": 0, "heldout": 0}
    with _gzip_writer(folder / "train.jsonl.gz") as train, _gzip_writer(folder / "heldout.jsonl.gz") as heldout:
        files = {"train": train, "heldout": heldout}
        for document in documents:
            part = "heldout" if _uniform(document.text, settings.seed, "split") < settings.heldout_share else "train"
            counts[part] += 1
            record = {"text": document.text, "source": document.source, "license": document.license,
                      "domain": document.domain}  # fmt: skip
            files[part].write((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8"))
            if report.kept % 500 == 0:
                on_progress(report)
    return counts


@contextlib.contextmanager
def _gzip_writer(path: Path) -> Iterator[gzip.GzipFile]:
    # No name and no time in the header: equal corpora are equal files.
    with open(path, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
        yield stream


def _replace(folder: Path, draft: Path) -> None:
    """Give ``draft`` the name ``folder``; what bore it before goes only once that is done."""
    old = draft.with_suffix(".old")
    if folder.exists():
        folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("train.jsonl.gz", "heldout.jsonl.gz"):
        with gzip.open(folder / name) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        digest.update(b"\0")  # a text that changes sides changes the corpus
    return digest.hexdigest()[:16]
