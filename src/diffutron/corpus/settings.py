"""The corpus recipe: where texts come from, which of them stay, and who does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diffutron.corpus.clean import CleaningSettings
from diffutron.corpus.duplicates import DuplicateSettings
from diffutron.corpus.filters import FilterSettings
from diffutron.recipe import Settings

_HUB = "hf://"
Value = str | bool | int | float


class SourceSettings(Settings):
    """One source of texts: a file or folder, or a data set on the hub."""

    path: str | None = None
    """A file or folder of JSONL, CSV, txt, parquet or a Wikipedia dump, packed or not; or hf://org/name@revision."""
    hub: str | None = None
    """A data set's id on the Hugging Face hub, read as a stream."""
    config: str | None = None
    """The hub data set's configuration, e.g. 20231101.tr."""
    revision: str | None = None
    """The hub data set's revision; name one to be able to repeat the build."""
    split: str = "train"
    """The hub data set's split."""
    kind: Literal["texts", "conversations"] = "texts"
    """texts: a text in each record; conversations: questions and answers, or messages, in columns that are known."""
    text_field: str = "text"
    """The field that holds the text."""
    group_field: str | None = None
    """Records with one value here, e.g. the passage of several questions, are all trained on or all held out."""
    name: str | None = None
    """What reports call the source; its path or id unless named."""
    license: str | None = None
    """Licence of records that state none."""
    domain: str | None = None
    """Domain of records that state none, e.g. news."""
    where: dict[str, list[Value]] = Field(default_factory=dict)
    """Keep only records whose field has one of these values; 1 is also "1"."""
    exclude: dict[str, list[Value]] = Field(default_factory=dict)
    """Leave out records whose field has one of these values; 1 is also "1"."""
    sample: float = Field(default=1.0, gt=0, le=1)
    """Share of documents to keep, chosen by a hash of the text."""
    max_documents: int | None = Field(default=None, ge=1)
    """At most so many documents of the source stay, chosen evenly by a hash of the text."""
    max_records: int | None = Field(default=None, ge=1)
    """Read only so many records of each file of the source, or of the hub's stream: for a quick trial."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """How often a text of the source stands in the training part; 2.5: twice, and every other one a third time."""
    cleaning: CleaningSettings | Literal["none"] | None = None
    """What is repaired in the source's texts, or none; left out, what the corpus says."""
    filters: FilterSettings | Literal["none"] | None = None
    """Which of the source's texts are dropped for what they are, or none; left out, what the corpus says."""

    @model_validator(mode="before")
    @classmethod
    def _hub_address(cls, values: Any) -> Any:
        """``path: hf://org/name@revision`` is ``hub: org/name`` with ``revision``."""
        if not isinstance(values, dict) or not str(values.get("path") or "").startswith(_HUB):
            return values
        name, _, revision = str(values["path"]).removeprefix(_HUB).partition("@")
        if values.get("hub") is not None or (revision and values.get("revision") is not None):
            raise ValueError(f"{values['path']} names the hub, and so does hub or revision; keep one")
        return {**values, "path": None, "hub": name, "revision": revision or values.get("revision")}

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, values: Any) -> Any:
        """A path may come as one."""
        if isinstance(values, dict) and isinstance(values.get("path"), Path):
            return {**values, "path": str(values["path"])}
        return values

    @model_validator(mode="after")
    def _one_place(self) -> SourceSettings:
        if (self.path is None) == (self.hub is None):
            raise ValueError("a source needs either a path or a hub id")
        return self

    @property
    def label(self) -> str:
        return self.name or self.hub or str(self.path)


class TokenLengthSettings(Settings):
    """How long a text may be in a tokenizer's pieces, special tokens not counted."""

    tokenizer: str
    """A folder with tokenizer.json, or a hub id (org/name or org/name@revision)."""
    low: int = Field(default=1, ge=1)
    """The fewest pieces."""
    high: int | None = Field(default=None, ge=1)
    """The most pieces; the seed's corpus had 512."""


class EvaluationSetSettings(Settings):
    """Texts that no training text may contain."""

    path: Path
    """A file or folder of evaluation texts."""
    text_fields: list[str] = Field(default=["text"], min_length=1)
    """The fields that hold text; each is looked for apart."""
    name: str | None = None
    """What reports call it; its path unless named."""


class LocalSettings(Settings):
    """Processes on this machine."""

    kind: Literal["local"] = "local"
    workers: int = Field(default=1, ge=1)
    """Processes at a time; 1 works in this process. The result does not depend on it."""


class SlurmSettings(Settings):
    """Job arrays on a Slurm cluster, one after the other; run the same command again to see how far they are."""

    kind: Literal["slurm"]
    partition: str
    """Where the jobs run."""
    time: str = "24:00:00"
    """Time limit of a job."""
    workers: int = Field(default=-1, ge=-1)
    """Tasks at a time; -1: as many as the cluster lets run."""
    cpus_per_task: int = Field(default=1, ge=1)
    """CPUs of a task; more only to be given more memory."""
    mem_per_cpu_gb: int = Field(default=2, ge=1)
    """Memory of a CPU in GB."""
    venv: Path | None = None
    """A virtual environment to activate on the nodes."""


class RaySettings(Settings):
    """Tasks on a Ray cluster."""

    kind: Literal["ray"]
    workers: int = Field(default=-1, ge=-1)
    """Tasks at a time; -1: all."""
    cpus_per_task: int = Field(default=1, ge=1)
    """CPUs of a task."""


ExecutorSettings = Annotated[LocalSettings | SlurmSettings | RaySettings, Field(discriminator="kind")]


class CorpusSettings(Settings):
    """Where texts come from, which of them stay, and how many are held out."""

    sources: list[SourceSettings] = Field(min_length=1)
    """The sources, read in this order; of two equal texts the first stays, unless its source leaves it out."""
    output: Path | None = None
    """The folder to make, unless the command line names one."""
    min_characters: int = Field(default=40, ge=1)
    """Shorter texts are near-empty and dropped."""
    max_characters: int | None = Field(default=1_000_000, ge=1)
    """Longer texts are dropped."""
    cleaning: CleaningSettings | Literal["none"] = CleaningSettings()
    """What is repaired in a text, or none; every text is brought into one normal form all the same."""
    filters: FilterSettings | Literal["none"] = FilterSettings()
    """Which texts are dropped for what they are, or none."""
    token_length: TokenLengthSettings | None = None
    """Drop texts that are too short or too long for a tokenizer; left out, any length stays."""
    duplicates: DuplicateSettings | Literal["none"] = DuplicateSettings()
    """What counts as a repetition, or none."""
    decontaminate: list[EvaluationSetSettings] | Literal["none"] | None = None
    """Evaluation sets whose texts are dropped, or none; a training recipe must say which."""
    heldout_share: float = Field(default=0.01, ge=0, lt=1)
    """Share of documents kept out of training."""
    seed: int = Field(default=0, ge=0)
    """Chooses samples and the split."""
    executor: ExecutorSettings = LocalSettings()
    """Who does the work; the result does not depend on it."""

    def cleaning_of(self, source: SourceSettings) -> CleaningSettings | None:
        """What is repaired in the texts of ``source``."""
        own = self.cleaning if source.cleaning is None else source.cleaning
        return None if own == "none" else own

    def filters_of(self, source: SourceSettings) -> FilterSettings | None:
        """What the texts of ``source`` have to pass."""
        own = self.filters if source.filters is None else source.filters
        return None if own == "none" else own

    def identity(self) -> dict[str, Any]:
        """What the corpus depends on: everything but who does the work and where it goes."""
        return self.model_dump(mode="json", exclude={"executor", "output"})

    @property
    def evaluation_sets(self) -> list[EvaluationSetSettings]:
        return self.decontaminate if isinstance(self.decontaminate, list) else []
