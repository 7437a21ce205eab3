"""Raw files to clean documents, each drop with a counted reason; broken records quarantined with file:line."""

from diffutron.corpus.build import BuiltCorpus, Progress, build_corpus, changed_input, open_corpus
from diffutron.corpus.read import Fault, files_of, read_records, read_texts
from diffutron.corpus.settings import CorpusSettings, LocalSettings, SourceSettings

__all__ = [
    "BuiltCorpus", "CorpusSettings", "Fault", "LocalSettings", "Progress", "SourceSettings", "build_corpus",
    "changed_input", "files_of", "open_corpus", "read_records", "read_texts",
]  # fmt: skip
