"""Raw files to clean documents, each drop with a counted reason; broken records quarantined with file:line."""

from diffutron.corpus.build import BuiltCorpus, CorpusSettings, SourceSettings, build_corpus, open_corpus
from diffutron.corpus.curate import CurationReport
from diffutron.corpus.document import Document
from diffutron.corpus.read import Fault, files_of, read_records, read_texts

__all__ = [
    "BuiltCorpus", "CorpusSettings", "CurationReport", "Document", "Fault", "SourceSettings", "build_corpus",
    "files_of", "open_corpus", "read_records", "read_texts",
]  # fmt: skip
