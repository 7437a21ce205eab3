"""Curation beside plain datatrove with comparable steps, in one run: documents a second, one process each.

    python benchmarks/corpus.py --data texts/ [--rounds 3]

The peer reads JSONL, applies datatrove's Gopher repetition, Gopher quality and FineWeb quality filters with FineWeb-2's
thresholds for Turkish, and its four MinHash steps (14 bands of 8, words in fives), and writes gzipped JSONL. Its own
Turkish words come from spaCy, which would be slower: here it splits by a regular expression, as we do. It does not
clean, identify languages, look for evaluation texts or repeated paragraphs; we do all of that as well.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer
from loguru import logger

from diffutron.corpus import CorpusSettings, build_corpus, files_of

STOP_WORDS = "ve bir olarak bu ile için olan da de tarafından yılında sonra en daha ilk".split()


class Words(WordTokenizer):
    """Words by a regular expression."""

    _pattern = re.compile(r"\w+|[^\w\s]")

    def word_tokenize(self, text: str) -> list[str]:
        return self._pattern.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return re.split(r"(?<=[.!?])\s+", text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in self._pattern.finditer(text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSONL.gz files, or a folder of them")
    parser.add_argument("--evaluation", type=Path, help="evaluation texts, for our decontamination")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logger.disable("datatrove")

    documents = count_lines(files_of(options.data))
    ours, theirs, kept = list[float](), list[float](), {}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            kept["theirs"] = plain_datatrove(options.data, Path(folder))
            theirs.append(documents / (time.perf_counter() - begun))
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            kept["ours"] = ours_on(options.data, options.evaluation, Path(folder))
            ours.append(documents / (time.perf_counter() - begun))
        print(f"round {number + 1}: ours {ours[-1]:.0f}, datatrove {theirs[-1]:.0f} documents/s", flush=True)
    print(json.dumps({
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 2),
        "ours_documents_per_second": [round(each) for each in ours],
        "datatrove_documents_per_second": [round(each) for each in theirs],
        "documents": documents, "kept": kept, "machine": f"{platform.machine()}, one process",
    }))  # fmt: skip


def ours_on(data: Path, evaluation: Path | None, folder: Path) -> int:
    settings = CorpusSettings(
        sources=[{"path": str(data)}], decontaminate=[{"path": evaluation}] if evaluation else "none"
    )
    return int(build_corpus(settings, folder / "corpus").report["kept"])


def plain_datatrove(data: Path, folder: Path) -> int:
    # Its xxhash does not work with xxhash 4 (strings must be encoded), so it hashes with sha1, its other choice.
    words, config = Words(), MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    read = JsonlReader(str(data), glob_pattern="*.jsonl.gz", compression="gzip")
    filters = [
        GopherRepetitionFilter(
            language=words, dup_para_frac=None, dup_line_char_frac=None, dup_para_char_frac=None, dup_line_frac=0.303,
            top_n_grams=((2, 0.094), (3, 0.114), (4, 0.136)),
            dup_n_grams=((5, 0.168), (6, 0.151), (7, 0.135), (8, 0.123), (9, 0.116), (10, 0.107)),
        ),
        FineWebQualityFilter(language=words, short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=0.2,
                             new_line_ratio=0.273),
        GopherQualityFilter(language=words, min_doc_words=None, min_avg_word_length=3, max_avg_word_length=21,
                            stop_words=STOP_WORDS, max_non_alpha_words_ratio=0.773),
    ]  # fmt: skip
    kept, signatures, buckets, remove = (str(folder / name) for name in ("kept", "signatures", "buckets", "remove"))
    reread = JsonlReader(kept, compression="gzip")
    pipelines = [
        [read, *filters, JsonlWriter(kept, output_filename="${rank}.jsonl.gz")],
        [reread, MinhashDedupSignature(signatures, config, language=words)],
        [MinhashDedupBuckets(signatures, buckets, config=config)],
        [MinhashDedupCluster(buckets, remove, config=config)],
        [reread, MinhashDedupFilter(remove), JsonlWriter(str(folder / "out"), output_filename="${rank}.jsonl.gz")],
    ]
    tasks = [1, 1, config.num_buckets, 1, 1]
    for number, (pipeline, count) in enumerate(zip(pipelines, tasks, strict=True)):
        LocalPipelineExecutor(pipeline, tasks=count, workers=1, logging_dir=str(folder / f"logs{number}")).run()
    return count_lines((folder / "out").glob("*.gz"))


def count_lines(files: Iterable[Path]) -> int:
    lines = 0
    for file in files:
        with gzip.open(file) as stream:
            lines += sum(1 for _ in stream)
    return lines


if __name__ == "__main__":
    main()
