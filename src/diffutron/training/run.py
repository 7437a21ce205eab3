"""A training run as a folder: the resolved recipe, the corpus, checkpoints, metrics, and the model at the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import PeftModel

from diffutron.corpus import BuiltCorpus, CorpusSettings, Progress, build_corpus, changed_input, open_corpus
from diffutron.errors import CheckpointError, RecipeError, TrainingError
from diffutron.model import Loaded, add_lora, go_on_from, load_model, save_adapter, save_model
from diffutron.model.checkpoint import weights_digest
from diffutron.model.names import weights_in
from diffutron.storage import as_finite, check_folder, refused, remove, strangers, write_bytes, write_json
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import Rows
from diffutron.tokens.shards import open_shards
from diffutron.training.corpus_rows import CorpusRows
from diffutron.training.estimate import check_length
from diffutron.training.fit import BadStep, Hooks, StepRecord, fit, is_out_of_memory
from diffutron.training.precision import Precision, agreed_precision
from diffutron.training.recipe import TrainRecipe
from diffutron.training.state import CheckpointStore, Cursor, Resume
from diffutron.training.workers import Workers

# Settings that may change between two slices of one run without changing its result by more than rounding, and, where
# an encoder has dropout, than other draws of it.
MAY_CHANGE = (
    "checkpoint_every_tokens", "keep_checkpoints", "evaluate_every_tokens", "micro_batch_tokens",
    "activation_checkpointing", "compile", "workers",
)  # fmt: skip


_BEFORE_THE_FIRST_STEP = re.compile(r"corpus|rows|start\.txt|\.(corpus|rows)\..*|\.run\.json\.tmp")
"""what an interrupted run, or who prepares one, leaves in its folder before the run is described; hidden, half done"""


@dataclass(frozen=True)
class Run:
    """Everything a run needs, loaded and checked, before the first step."""

    recipe: TrainRecipe
    folder: Path
    loaded: Loaded
    codec: TextCodec
    corpus: BuiltCorpus
    rows: Rows
    peft_model: PeftModel | None
    precision: Precision
    weights: str | None = None
    """what it begins with (:func:`~diffutron.model.checkpoint.weights_digest`), its first adapter included"""
    resume: Resume = Resume.AUTO

    @property
    def row_maker(self) -> CorpusRows:
        return CorpusRows.of(self.recipe.data, self.codec, self.corpus, seed=self.recipe.seed)

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> CheckpointStore:
        return CheckpointStore(
            self.folder / "checkpoints", identity=self.identity, keep=self.recipe.keep_checkpoints,
            anyway=self.resume is Resume.ANYWAY,
        )  # fmt: skip

    @property
    def model_folder(self) -> Path:
        """Where the result lies: an adapter if the recipe has LoRA, else a whole model."""
        return self.folder / ("adapter" if self.peft_model else "model")

    @property
    def identity(self) -> dict[str, Any]:
        """What the result depends on, so that the checkpoints of two runs are not mixed up."""
        return {"recipe": _identity_of(self.recipe), "data": self.rows.fingerprint, "weights": self.weights}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def trainable(self) -> int:
        return sum(param.numel() for param in self.loaded.denoiser.parameters() if param.requires_grad)

    @property
    def parameters(self) -> int:
        return self.loaded.denoiser.num_parameters


def prepare_run(
    recipe: TrainRecipe, folder: Path, *, on_corpus: Callable[[Progress], None] = lambda _: None,
    workers: Workers = Workers(), resume: Resume = Resume.AUTO,
) -> Run:  # fmt: skip
    """Build or open the corpus, load the model, add adapters, tokenise; write ``recipe.yaml`` and ``run.json``.

    Args:
        workers: the first of them builds and writes, while the others wait.
        resume: what becomes of a run that lies in ``folder``; ``never`` removes its checkpoints and its result.

    Raises:
        CheckpointError: another run lies there, or what is no run; nothing of it is touched. DataError: no corpus.
        ModelError: no usable model. InputError: rows longer than the model's context, or a file in the run's place.
    """
    _by_the_first(workers, lambda: _refuse_other(recipe, folder, resume))
    corpus = _corpus(recipe, folder, on_corpus, workers)
    loaded, peft_model = load_trainable(recipe)
    codec = TextCodec(loaded.tokenizer)
    maker = CorpusRows.of(recipe.data, codec, corpus, seed=recipe.seed)
    rows = _rows(maker, folder, corpus, workers)
    if maker.chat is not None:
        loaded.tokenizer.chat_template = maker.chat.template  # what it was trained with goes with it
    precision = agreed_precision(recipe.precision, next(loaded.denoiser.parameters()).device, workers)
    started = [recipe.lora.start] if recipe.lora is not None and recipe.lora.start is not None else []
    weights = weights_digest(recipe.model, started)
    run = Run(recipe, folder, loaded, codec, corpus, rows, peft_model, precision, weights, resume)

    def describe() -> None:
        if resume is Resume.NEVER:  # now that everything else is known to be well
            for each in ("checkpoints", "adapter", "model", "metrics.jsonl"):
                remove(folder / each)
        write_json(folder / "run.json", _manifest(run))
        text = yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
        write_bytes(folder / "recipe.yaml", text.encode())

    _by_the_first(workers, describe)
    return run


def load_trainable(recipe: TrainRecipe) -> tuple[Loaded, PeftModel | None]:
    """The recipe's model as it is before the first step, with what it trains switched on.

    Raises:
        ModelError: no usable model. InputError: rows longer than the model's context.
    """
    loaded = load_model(recipe.model)
    check_length(recipe, loaded.denoiser)
    if recipe.lora is None:
        loaded.denoiser.requires_grad_(True)
        return loaded, None
    base = Path(recipe.model)
    base_name = str(weights_in(base.resolve())) if base.is_dir() else recipe.model  # loads from any working directory
    peft_model = add_lora(loaded.denoiser, recipe.lora, seed=recipe.seed, base_name=base_name)
    if recipe.lora.start is not None:
        go_on_from(peft_model, recipe.lora.start, base=recipe.model)
    return loaded, peft_model


def execute(
    run: Run, *, workers: Workers = Workers(), on_record: Callable[[dict[str, Any]], None] = lambda _: None,
    evaluate: Callable[[], dict[str, Any]] | None = None,
) -> Path:  # fmt: skip
    """Train to the end, from the run's newest checkpoint on, and save the result.

    Args:
        on_record: gets every line that also goes to ``metrics.jsonl``.
        evaluate: measures the model as it stands; runs as often as the recipe says, and at the end.

    Returns:
        The folder of the adapter or model.
    """
    records = _MetricsFile(run.metrics, on_record)

    def measure(cursor: Cursor) -> None:
        if evaluate is None:
            return
        scores = evaluate()
        if workers.is_first:
            records.write({"step": cursor.step, "tokens": cursor.tokens, **scores})

    def note(record: StepRecord) -> None:
        if workers.is_first:
            records.write(vars(record))

    def dump(bad: BadStep) -> None:
        if workers.is_first:
            texts = [run.codec.decode(run.rows[example].tolist()) for example in bad.examples]
            write_json(run.folder / f"bad-step-{bad.step:07d}.json", {**vars(bad), "texts": texts})

    try:
        fit(run.loaded.denoiser, run.rows, run.codec, run.recipe, run.checkpoints,
            hooks=Hooks(note, dump, measure), workers=workers)  # fmt: skip
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory, even with one text at a time; lower data.max_tokens ({run.recipe.data.max_tokens}) or "
            "set activation_checkpointing=true"
        ) from error
    _save(run, workers)
    return run.model_folder


def _save(run: Run, workers: Workers) -> None:
    """The result, whole, by the first worker."""
    dtype = {"float32": torch.float32, "float16": torch.float16}[run.recipe.save_dtype]
    model = run.peft_model if run.peft_model is not None else run.loaded.denoiser.model
    state = {name: workers.whole(tensor) for name, tensor in model.state_dict().items()}

    def save() -> None:
        if run.peft_model is not None:
            save_adapter(
                run.model_folder, run.peft_model, diffusion_config(run), dtype=dtype, state=state,
                chat_template=run.loaded.tokenizer.chat_template,
            )  # fmt: skip
        else:
            save_model(
                run.model_folder, run.loaded.denoiser, run.loaded.tokenizer, diffusion_config(run), dtype=dtype,
                state=state,
            )  # fmt: skip

    _by_the_first(workers, save)


def diffusion_config(run: Run) -> dict[str, Any]:
    """Data-only settings that a plain Hugging Face configuration has no place for."""
    return {
        "format": 1,
        "learned_end": True,
        "max_tokens": run.recipe.data.max_tokens,
        "objective": run.recipe.objective.model_dump(mode="json"),
    }


class _MetricsFile:
    """JSON lines, one write each; what a resumed run does again replaces what it had written of it."""

    def __init__(self, path: Path, on_record: Callable[[dict[str, Any]], None]) -> None:
        self.path, self.on_record, self.has_begun = path, on_record, False

    def write(self, record: dict[str, Any]) -> None:
        if not self.has_begun and self.path.exists():
            self._drop_from(self._order(record))
        self.has_begun = True
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(as_finite(record), allow_nan=False) + "\n")
        except OSError as error:
            raise refused(self.path, error) from None
        self.on_record(record)

    def _drop_from(self, first: tuple[int, bool]) -> None:
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):  # a line cut by a kill
                if self._order(json.loads(line)) < first:
                    kept.append(line + "\n")
        write_bytes(self.path, "".join(kept).encode())

    @staticmethod
    def _order(record: dict[str, Any]) -> tuple[int, bool]:
        """A step comes before the scores that are measured after it."""
        return record["step"], "loss" not in record


def _refuse_other(recipe: TrainRecipe, folder: Path, resume: Resume) -> None:
    """Not to put a run over what is another's, before anything of it is written.

    Raises:
        CheckpointError: something lies there that no run made, or another run that is to be gone on with.
        InputError: a file lies there.
    """
    check_folder(folder)
    if not (folder / "run.json").is_file() and (others := strangers(folder, _BEFORE_THE_FIRST_STEP)):
        raise CheckpointError(f"{folder} holds {others[0].name!r} and no run; choose another run folder with --out")
    store = CheckpointStore(folder / "checkpoints", identity={"recipe": _identity_of(recipe)}, keep=1)
    if resume is not Resume.AUTO or (before := store.last_run()) is None:
        return
    store.refuse_other({"recipe": before["recipe"]})
    if recipe.data.build is not None and (folder / "corpus" / "report.json").is_file():
        corpus = open_corpus(folder / "corpus")
        same = corpus.report["recipe"] == recipe.data.build.identity()
        if same and (changed := changed_input(corpus)) is not None:
            raise store.refusal(f"{changed} has changed since it was read")


def _identity_of(recipe: TrainRecipe) -> dict[str, Any]:
    return {key: value for key, value in recipe.model_dump(mode="json").items() if key not in MAY_CHANGE}


def _corpus(recipe: TrainRecipe, folder: Path, on_corpus: Callable[[Progress], None], workers: Workers) -> BuiltCorpus:
    settings, place = recipe.data.build, folder / "corpus"

    def make() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if settings is not None and not is_built(settings, place):
            build_corpus(settings, place, on_progress=on_corpus)

    _by_the_first(workers, make)
    if recipe.data.corpus is None:
        return open_corpus(place)
    corpus = open_corpus(recipe.data.corpus)
    if corpus.report["recipe"].get("decontaminate") is None:
        raise RecipeError(
            f"the corpus {corpus.folder} was built without a word on evaluation sets; build it again with "
            "decontaminate: the sets whose texts must not be trained on, or none"
        )
    return corpus


def _rows(maker: CorpusRows, folder: Path, corpus: BuiltCorpus, workers: Workers) -> Rows:
    """The corpus in tokens, made once in the run folder and mapped into memory by every worker."""
    place = folder / "rows"

    def make() -> None:
        maker.ensure(corpus, place)

    _by_the_first(workers, make)
    return open_shards(place)


def is_built(settings: CorpusSettings, place: Path) -> bool:
    """Whether the corpus of these settings lies there already."""
    if not (place / "report.json").is_file():
        return False
    corpus = open_corpus(place)
    return corpus.report["recipe"] == settings.identity() and changed_input(corpus) is None


def _by_the_first(workers: Workers, work: Callable[[], None]) -> None:
    """What one process does for all: the others wait, and raise what it met."""
    error: Exception | None = None
    if workers.is_first:
        try:
            work()
        except Exception as met:  # whatever it is, the others wait to hear of it
            error = met
    workers.agree(error)


def _manifest(run: Run) -> dict[str, Any]:
    return {
        "command": sys.argv,
        "versions": {name: _version(name) for name in ("diffutron", "torch", "transformers", "peft", "tokenizers")},
        "python": platform.python_version(),
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "precision": run.precision.name,
        },
        "corpus_fingerprint": run.corpus.report["fingerprint"],
        "run_fingerprint": run.fingerprint,
        "rows": len(run.rows),
        "tokens": int(run.rows.lengths.sum()),
        "parameters": run.parameters,
        "trainable_parameters": run.trainable,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
