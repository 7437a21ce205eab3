"""The steps of a build as datatrove's blocks: each reads and writes files of its task, whole or not at all.

read    records → clean texts that pass the filters, and the keys by which repetitions are found
match   within a partition of the keys: which documents share one
settle  which documents go: what is above a source's cap, and repetitions of what stays
prune   within a partition: paragraphs that an earlier document has
write   the texts that stay, as training or held-out part
publish the parts end to end, the report and the manifest
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from diffutron.corpus.between import (
    END,
    KEY,
    REASONS,
    Beat,
    Part,
    document_ids,
    keys_of_partition,
    number_in_task,
    packing,
    read_texts_of,
    rows_of_task,
    write_array,
)
from diffutron.corpus.clean import Cleaner, lacks_turkish_letters
from diffutron.corpus.contamination import ContaminationIndex
from diffutron.corpus.conversations import messages_of, text_of, turns_of
from diffutron.corpus.draws import draw, text_digest, uniform
from diffutron.corpus.duplicates import MinHash, all_but_one, clusters, exact_key, paragraph_keys, repeated
from diffutron.corpus.filters import TextView, build_filters
from diffutron.corpus.plan import Plan
from diffutron.corpus.read import LONGEST_LINE, Fault, OnFault, Place, digest_of, read_all
from diffutron.corpus.settings import CorpusSettings, EvaluationSetSettings, SourceSettings
from diffutron.corpus.source_records import is_asked_for, records_of, share_of_records
from diffutron.corpus.tally import Sample, Tally
from diffutron.corpus.token_length import TokenLength
from diffutron.errors import DataError
from diffutron.storage import write_json, writing
from diffutron.text import normalise


class Step(PipelineStep):  # type: ignore[misc]
    """A block that knows the plan. Blocks of one pipeline share a tally, which the last of them writes."""

    type = "corpus"

    def __init__(self, plan: Plan, tally: Tally | None = None) -> None:
        super().__init__()
        self.plan, self.tally = plan, tally or Tally()

    @property
    def settings(self) -> CorpusSettings:
        return self.plan.settings

    def source(self, rank: int) -> SourceSettings:
        """Where a task's records come from."""
        return self.plan.settings.sources[self.plan.tasks[rank].source]

    def drop(self, document: Document, reason: str, detail: str = "") -> None:
        meta = document.metadata
        self.tally.drop(reason, meta["source"], len(document.text.encode("utf-8")))
        self.tally.show(reason, Sample(draw(document.text, 0, "show"), meta["place"], detail, document.text))


class ReadRecords(Step):
    """A task's records as documents; what is no text is quarantined."""

    name = "read"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        task = self.plan.tasks[rank]
        source = self.settings.sources[task.source]
        if task.file is not None and task.stripe.index == 0:
            write_json(self.plan.file("input", rank, "json"), {str(task.file): digest_of(task.file)})
        place, quarantine = Place(), self.plan.file("quarantine", rank, "jsonl")
        with writing(quarantine) as faults:

            def on_fault(fault: Fault) -> None:
                self.tally.read += 1
                self.tally.quarantined += 1
                self.tally.read_by_source[source.label] += 1
                line = json.dumps({"place": fault.place, "reason": fault.reason}, ensure_ascii=False)
                faults.write((line + "\n").encode("utf-8"))

            records = records_of(source, task, on_fault, place)
            beat = Beat(self.plan.file("progress", rank, "json"))
            for where, record in itertools.islice(records, share_of_records(source, task)):
                document = self._document(where, record, source, on_fault)
                if document is not None:
                    yield document
                beat(place.share, self.tally.read)
            beat(1.0, self.tally.read, last=True)

    def _document(
        self, place: str, record: dict[str, Any], source: SourceSettings, on_fault: OnFault
    ) -> Document | None:
        matches, text, own = is_asked_for(record, source), record.get(source.text_field), dict[str, Any]()
        if matches and source.group_field is not None:
            if source.group_field not in record:
                on_fault(Fault(place, f"has no field {source.group_field!r} to be grouped by"))
                return None
            if record[source.group_field] not in (None, ""):
                own["group"] = str(record[source.group_field])
        if matches and source.kind == "conversations":
            try:
                own["messages"] = messages_of(turns_of(record))
            except ValueError as error:
                on_fault(Fault(place, str(error)))
                return None
            text = text_of(own["messages"])
        if matches and not isinstance(text, str):
            on_fault(Fault(place, f"has no text in the field {source.text_field!r}"))
            return None
        document = Document(text if isinstance(text, str) else "", "", metadata={
            "place": place, "source": source.label,
            "license": str(record.get("license") or source.license or ""),
            "domain": str(record.get("domain") or source.domain or ""),
            **own,
        })  # fmt: skip
        size = len(document.text.encode("utf-8"))
        self.tally.read += 1
        self.tally.read_by_source[source.label] += 1
        self.tally.bytes_read += size
        if not matches:
            self.tally.drop("not asked for", source.label, size)
        elif source.sample < 1 and uniform(document.text, self.settings.seed, "sample") >= source.sample:
            self.tally.drop("not in the sample", source.label, size)
        else:
            return document
        return None


class Clean(Step):
    """Repair what the recipe says, and drop what has no length to be judged by."""

    name = "clean"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        cleaning, longest = self.settings.cleaning_of(self.source(rank)), self.settings.max_characters
        cleaner = Cleaner(cleaning) if cleaning is not None else None
        for document in data:
            # Before it is cleaned, too: no minute for a text that is fifty times too long.
            if longest is not None and len(document.text) > 2 * longest:
                self.drop(document, "too long", f"{len(document.text):,} characters > {longest:,}")
                continue
            self._repair(document, cleaner)
            if not all(message["content"].strip() for message in document.metadata.get("messages", ())):
                self.drop(document, "nothing left of a turn")
            elif not any(map(str.isalpha, document.text)):
                self.drop(document, "no letters")
            elif len(document.text) < self.settings.min_characters:
                self.drop(document, "near-empty", f"{len(document.text)} characters < {self.settings.min_characters}")
            elif longest is not None and len(document.text) > longest:
                self.drop(document, "too long", f"{len(document.text):,} characters > {longest:,}")
            else:
                yield document

    def _repair(self, document: Document, cleaner: Cleaner | None) -> None:
        """Bring a text into its normal form, or each turn of a conversation for itself."""

        def repaired(text: str) -> str:
            if cleaner is None:
                return normalise(text)
            cleaned = cleaner(text)
            self.tally.repairs.update(cleaned.repairs)
            return cleaned.text

        messages = document.metadata.get("messages")
        if messages is None:
            document.text = repaired(document.text)
            return
        for message in messages:
            message["content"] = repaired(message["content"])
        document.text = text_of(messages)


class Judge(Step):
    """Drop what the filters refuse, and what an evaluation set holds."""

    name = "judge"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        settings = self.settings.filters_of(self.source(rank))
        filters = build_filters(settings) if settings is not None else []
        index = contamination_index(self.plan)
        lengths = TokenLength(self.settings.token_length) if self.settings.token_length else None
        for document in data:
            view = TextView(document.text)
            for each in filters:
                if (detail := each.fault(view)) is not None:
                    self.drop(document, each.name, detail)
                    break
            else:
                if index is not None and (hit := index.hit(document.text)) is not None:
                    self.tally.contamination[hit.name] += 1
                    self.drop(document, "contaminated", f"{hit.name}, {hit.kind}: {hit.words}")
                elif lengths is not None and (detail := lengths.fault(document.text)) is not None:
                    self.drop(document, "token length", detail)
                else:
                    yield document


class Thin(Step):
    """Draw the training texts of a source whose weight is below 1. Before repetitions are sought: a text that goes here
    must not make another one go."""

    name = "thin"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        weight = self.source(rank).weight  # by task: two sources may share a label
        for document in data:
            drawn = uniform(document.text, self.settings.seed, "weight") < weight
            if drawn or is_heldout(document, self.settings):
                yield document
            else:
                self.drop(document, "weight below 1")


class KeepTexts(Step):
    """Write a task's texts, and the keys by which repetitions are found."""

    name = "keep"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        duplicates = None if self.settings.duplicates == "none" else self.settings.duplicates
        minhash = MinHash(duplicates) if duplicates is not None and duplicates.near else None
        exact, near, paragraphs, draws = list[int](), list[NDArray[np.uint64]](), list[tuple[int, int]](), list[int]()
        with writing(self.plan.file("texts", rank, "jsonl.zst")) as raw, packing(raw) as stream:
            for document in data:
                record = {"text": document.text, **document.metadata}
                line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
                if len(line) > LONGEST_LINE:  # nothing could read it back, now or from the corpus
                    self.drop(document, "too long", f"{len(line):,} bytes > {LONGEST_LINE:,}")
                    continue
                stream.write(line)
                number = len(draws)
                draws.append(draw(document.text, self.settings.seed, "cap"))
                if duplicates is not None and duplicates.exact:
                    exact.append(exact_key(document.text))
                if minhash is not None:
                    near.append(minhash.keys(document.text))
                # A turn without one of its paragraphs may be no answer any more.
                if duplicates is not None and duplicates.paragraphs and "messages" not in document.metadata:
                    found = paragraph_keys(document.text, duplicates.paragraph_characters)
                    paragraphs += [(key, number) for key, _, _ in found]
        numbers = np.arange(len(draws), dtype=np.uint64)
        bands = np.concatenate(near) if near else np.empty(0, np.uint64)
        keys, owners = (np.array([each[part] for each in paragraphs], dtype=np.uint64) for part in (0, 1))
        self._write_keys("exact", rank, np.array(exact, dtype=np.uint64), numbers[: len(exact)])
        self._write_keys("near", rank, bands, np.repeat(numbers, len(bands) // max(len(numbers), 1)))
        self._write_keys("paragraph", rank, keys, owners)
        write_array(self.plan.file("draws", rank, "npy"), np.array(draws, dtype=np.uint64))
        write_json(self.plan.file("read", rank, "json"), self.tally.as_dict())

    def _write_keys(self, kind: str, rank: int, keys: NDArray[np.uint64], numbers: NDArray[np.uint64]) -> None:
        table = np.empty(len(keys), dtype=KEY)
        table["key"], table["id"] = keys, document_ids(rank, numbers)
        table.sort(order=("key", "id"))
        write_array(self.plan.file(f"keys-{kind}", rank, "npy"), table)


class MatchKeys(Step):
    """Which documents share a key: pairs of the first and each other one."""

    name = "match"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        for kind in ("exact", "near"):
            table = keys_of_partition(self.plan, kind, rank)
            write_array(self.plan.file(f"pairs-{kind}", rank, "npy"), repeated(table["key"], table["id"]))


class Settle(Step):
    """Which documents go, and why: one sorted table for all tasks.

    Source by source, for a text above one's cap must not make the same text in a later one go.
    """

    name = "settle"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        exact, near = (clusters(self._pairs(kind)) for kind in ("exact", "near"))
        ends = np.empty(0, dtype=END)
        for index, source in enumerate(self.settings.sources):
            if source.max_documents is not None:
                repeated = _repetitions(exact, near, without=ends["id"])
                ends = np.concatenate([ends, self._of_capped(index, source.max_documents, repeated)])
        ends = np.concatenate([ends, _repetitions(exact, near, without=ends["id"])])
        ends.sort(order="id")
        write_array(self.plan.file("ends", 0, "npy"), ends)

    def _pairs(self, kind: str) -> NDArray[np.uint64]:
        return np.concatenate([np.load(file) for file in self.plan.partitions(f"pairs-{kind}")])

    def _of_capped(self, source: int, cap: int, repeated: NDArray[Any]) -> NDArray[Any]:
        """What goes of a source: repetitions, and of the rest all but the ``cap`` documents with the smallest draws."""
        ids, draws = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for number, task in enumerate(self.plan.tasks):
            if task.source == source:
                drawn = np.load(self.plan.file("draws", number, "npy"))
                ids.append(document_ids(number, np.arange(len(drawn), dtype=np.uint64)))
                draws.append(drawn)
        documents, drawn = np.concatenate(ids), np.concatenate(draws)
        repeated = repeated[np.isin(repeated["id"], documents)]
        stays = ~np.isin(documents, repeated["id"])
        documents, drawn = documents[stays], drawn[stays]
        return np.concatenate([repeated, _ends(documents[np.lexsort((documents, drawn))[cap:]], "above the cap")])


def _repetitions(exact: NDArray[np.uint64], near: NDArray[np.uint64], without: NDArray[np.uint64]) -> NDArray[Any]:
    """What goes as the repetition of an earlier document, where those of ``without`` are gone already."""
    same = all_but_one(exact, without)
    alike = np.setdiff1d(all_but_one(near, without), same)
    return np.concatenate([_ends(same, "exact duplicate"), _ends(alike, "near duplicate")])


def _ends(ids: NDArray[np.uint64], reason: str) -> NDArray[Any]:
    ends = np.empty(len(ids), dtype=END)
    ends["id"], ends["reason"] = ids, REASONS.index(reason)
    return ends


class PruneParagraphs(Step):
    """Paragraphs of documents that stay, in which an earlier document that stays has them too."""

    name = "prune"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        table = keys_of_partition(self.plan, "paragraph", rank)
        table = np.unique(table[~np.isin(table["id"], np.load(self.plan.file("ends", 0, "npy"))["id"])])
        # Equal keys stand together, the first document's in front.
        later = np.flatnonzero(table["key"][1:] == table["key"][:-1]) + 1
        pruned = table[later]
        pruned.sort(order=("id", "key"))
        write_array(self.plan.file("pruned", rank, "npy"), pruned)


class WriteParts(Step):
    """The texts that stay, as training or held-out part."""

    name = "write"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        ends = {number: REASONS[reason] for number, reason in self._ends(rank)}
        pruned, duplicates = self._pruned(rank), self.settings.duplicates
        weight = self.source(rank).weight
        train, heldout = (
            Part(self.plan.file("train", rank, "jsonl.gz")),
            Part(self.plan.file("heldout", rank, "jsonl.gz")),
        )
        with train, heldout:
            for number, document in enumerate(read_texts_of(self.plan, rank)):
                if number in ends:
                    self.drop(document, ends[number])
                    continue
                if number in pruned and duplicates != "none":
                    document.text = without_paragraphs(document.text, pruned[number], duplicates.paragraph_characters)
                    self.tally.repairs["repeated paragraphs"] += 1
                    if len(document.text) < self.settings.min_characters:
                        self.drop(document, "repeated paragraphs")
                        continue
                self._keep(document, weight, train, heldout)
        write_json(self.plan.file("digest", rank, "json"), [train.digest, heldout.digest])
        write_json(self.plan.file("written", rank, "json"), self.tally.as_dict())

    def _ends(self, rank: int) -> Iterator[tuple[int, int]]:
        table = np.load(self.plan.file("ends", 0, "npy"), mmap_mode="r")
        for row in table[rows_of_task(table["id"], rank)]:
            yield number_in_task(int(row["id"])), int(row["reason"])

    def _pruned(self, rank: int) -> dict[int, set[int]]:
        pruned: dict[int, set[int]] = {}
        for file in self.plan.partitions("pruned"):
            table = np.load(file, mmap_mode="r") if file.stat().st_size > 200 else np.load(file)
            for row in table[rows_of_task(table["id"], rank)]:
                pruned.setdefault(number_in_task(int(row["id"])), set()).add(int(row["key"]))
        return pruned

    def _keep(self, document: Document, weight: float, train: Part, heldout: Part) -> None:
        text, meta, tally, seed = document.text, document.metadata, self.tally, self.settings.seed
        size, license_ = len(text.encode("utf-8")), meta["license"] or "unknown"
        held_out = is_heldout(document, self.settings)
        # Of a weight below 1 the draw was before.
        copies = 1 if held_out else max(1, int(weight) + (uniform(text, seed, "weight") < weight % 1))
        record = {"text": text, "source": meta["source"], "license": meta["license"], "domain": meta["domain"]}
        if "messages" in meta:
            record["messages"] = meta["messages"]
            tally.conversations += 1
        if "group" in meta:
            record["group"] = f"{text_digest(meta['group']):016x}"
        for _ in range(copies):
            (heldout if held_out else train).write(record)
        tally.kept += 1
        tally.characters += len(text)
        tally.bytes_kept += size
        tally.heldout += held_out
        tally.train += not held_out
        tally.copies += copies - 1
        tally.by_source[meta["source"]] += 1
        tally.licenses[license_] += 1
        tally.license_bytes[license_] += size
        tally.domains[meta["domain"] or "unknown"] += 1
        tally.lengths[str(1 << (len(text).bit_length() - 1))] += 1
        if lacks_turkish_letters(text):
            tally.repairs["typed without Turkish letters (kept as it is)"] += 1
        tally.show("kept", Sample(draw(text, 0, "show"), meta["place"], "", text))


def is_heldout(document: Document, settings: CorpusSettings) -> bool:
    return uniform(document.metadata.get("group", document.text), settings.seed, "split") < settings.heldout_share


def without_paragraphs(text: str, keys: set[int], minimum: int) -> str:
    """The text without the paragraphs that have these keys."""
    kept, end = list[str](), 0
    for key, start, stop in paragraph_keys(text, minimum):
        if key in keys:
            kept.append(text[end:start])
            end = stop + len(text[stop:]) - len(text[stop:].lstrip("\n"))  # with the break after it
    kept.append(text[end:])
    return "".join(kept).strip() if len(kept) > 1 else text


def build_index(plan: Plan) -> None:
    """Make the index of the evaluation sets once; the tasks only load it."""
    if not plan.settings.evaluation_sets or _index_file(plan).is_file():
        return

    index = ContaminationIndex.build(_evaluation_texts(plan.settings.evaluation_sets))
    with writing(_index_file(plan)) as stream:
        index.save(stream)


def _evaluation_texts(sets: Iterable[EvaluationSetSettings]) -> Iterator[tuple[str, str]]:
    """
    Raises:
        DataError: a set, or one of its fields, has no text: training texts would count as clean of it.
    """
    for each in sets:
        missing, known = set(each.text_fields), dict[str, None]()
        for _, record in read_all(each.path):
            known |= dict.fromkeys(record)
            for field in each.text_fields:
                if isinstance(text := record.get(field), str):
                    missing.discard(field)
                    yield each.name or str(each.path), normalise(text)
        if missing:
            there = f"its records have {', '.join(known)}" if known else "there are no records"
            raise DataError(f"decontaminate: {each.path} has no text in {min(missing)!r}; {there}; set text_fields")


def contamination_index(plan: Plan) -> ContaminationIndex | None:
    return ContaminationIndex.load(_index_file(plan)) if plan.settings.evaluation_sets else None


def _index_file(plan: Plan) -> Path:
    return plan.folder / "evaluation" / "index.npz"
