"""``data build``: a recipe of sources to a folder with ``train.jsonl.gz``, ``heldout.jsonl.gz`` and a report."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffutron.corpus.execute import Stage, run_stages
from diffutron.corpus.plan import Plan, identity, judging_files, plan_build, state_of
from diffutron.corpus.read import digest_of, files_of
from diffutron.corpus.settings import CorpusSettings
from diffutron.corpus.steps import (
    Clean,
    Judge,
    KeepTexts,
    MatchKeys,
    PruneParagraphs,
    ReadRecords,
    Settle,
    Step,
    Thin,
    WriteParts,
    build_index,
)  # fmt: skip
from diffutron.corpus.tally import Tally
from diffutron.errors import DataError
from diffutron.storage import appearing, check_folder, file_digest, recover, refused, strangers, write_json

LIBRARIES = (
    "datatrove", "ftfy", "eldc", "py3langid", "xxhash", "numpy", "pyarrow", "tokenizers", "mwparserfromhell",
)  # fmt: skip
"""whose versions may change what stays; not all are installed everywhere"""
# The page is written afterwards, and may have been broken off.
_PARTS = re.compile(
    r"(train|heldout)\.jsonl\.gz|quarantine\.jsonl|(manifest|report)\.json|report\.html|\.report\.html\.tmp"
)


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


class NothingLeft(DataError):
    """Every document was dropped."""


@dataclass(frozen=True)
class Progress:
    """How far a build is."""

    stage: str
    share: float
    """of the stage, between 0 and 1"""
    read: int
    """documents that the running tasks and the finished ones have read"""


def build_corpus(
    settings: CorpusSettings, out: Path, *, on_progress: Callable[[Progress], None] = lambda _: None
) -> BuiltCorpus:
    """Read, clean, filter, deduplicate and split; the folder appears in one rename.

    What tasks have finished lies beside ``out`` in a hidden folder until the corpus stands: a build that was killed
    goes on from there when it is started again with the same recipe and the same files.

    Raises:
        DataError: a source is missing or changed meanwhile, nothing is left, another build is at work on ``out``, or
            ``out`` exists and is not a corpus, or not only one. InputError: a file lies there. StorageError: the disk
            refuses.
    """
    out = Path(out)
    recover(out)
    _refuse_strangers(out)
    plan = plan_build(settings, out)
    try:
        with _only_build(plan):
            _begin(plan)
            build_index(plan)
            try:
                left = run_stages(
                    stages_of(plan), settings.executor, plan.folder / "logs",
                    on_tick=lambda stage: on_progress(_progress(plan, stage)),
                )  # fmt: skip
            except NothingLeft:
                shutil.rmtree(plan.folder, ignore_errors=True)  # it would be so again
                raise
            if left:
                raise DataError(
                    f"the cluster is at work on {out}, tasks left: {', '.join(left)}; run the same command again to "
                    f"see how far it is, and to hand in again what failed; logs are in {plan.folder / 'logs'}"
                )
            shutil.rmtree(plan.folder, ignore_errors=True)
    except OSError as error:
        raise refused(out, error) from None
    return open_corpus(out)


def _refuse_strangers(out: Path) -> None:
    """Only an older corpus may make room for a newer one."""
    if Path.cwd().is_relative_to(out.resolve()):
        raise DataError(f"{out} is the folder that you are in, or holds it; name one that is to be made")
    check_folder(out)
    if not out.exists():
        return
    try:
        open_corpus(out)
    except DataError:
        raise DataError(f"{out} exists and is not a corpus; choose another folder") from None
    if others := strangers(out, _PARTS):
        raise DataError(f"{others[0]} is no part of a corpus and would be lost; move it, or choose another folder")


def open_corpus(folder: Path) -> BuiltCorpus:
    """A folder that ``data build`` made.

    Raises:
        DataError: there is no such corpus.
    """
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = None
    if not isinstance(report, dict) or not {"recipe", "train", "fingerprint"} <= report.keys():
        raise DataError(f"{folder} is not a corpus; make it with `diffutron data build RECIPE --out {folder}`")
    return BuiltCorpus(folder, report)


def changed_input(corpus: BuiltCorpus) -> Path | None:
    """A file that the corpus was made from, or would be made from now, and that is another than it was.

    Only what came to its place or was written since is read. A file that is gone says nothing: a corpus outlives its
    sources.
    """
    try:
        manifest = json.loads((corpus.folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    made = (corpus.folder / "manifest.json").stat().st_mtime_ns
    known = {
        each["path"]: each["sha256"] for kind in ("inputs", "evaluation", "judging") for each in manifest.get(kind, ())
    }
    settings = CorpusSettings.model_validate(corpus.report["recipe"])
    places = [source.path for source in settings.sources if source.path is not None]
    places += [str(texts.path) for texts in settings.evaluation_sets]
    read = itertools.chain.from_iterable(files_of(place) for place in places if Path(place).exists())
    for file in itertools.chain(read, judging_files(settings)):
        found = file.stat()  # its own time is the old one where an older file was moved or copied there
        if max(found.st_mtime_ns, found.st_ctime_ns) > made and known.get(str(file)) != digest_of(file):
            return file
    return None


def stages_of(plan: Plan) -> list[Stage]:
    """The steps of a build, in order."""
    tally = Tally()
    reading: list[Step] = [kind(plan, tally) for kind in (ReadRecords, Clean, Judge, Thin, KeepTexts)]
    return [
        Stage("read", reading, len(plan.tasks)),
        Stage("match", [MatchKeys(plan)], plan.num_partitions),
        Stage("settle", [Settle(plan)], 1),
        Stage("prune", [PruneParagraphs(plan)], plan.num_partitions),
        Stage("write", [WriteParts(plan)], len(plan.tasks)),
        Stage("publish", [Publish(plan)], 1),
    ]


class Publish(Step):
    """The parts end to end, the report and the manifest, in a folder that takes its name when it is whole."""

    name = "publish"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        plan = self.plan
        _refuse_changed(plan)
        tally = _total(plan)
        if tally.kept == 0:
            ends = {reason: counts.total() for reason, counts in tally.dropped.items()} | {
                "quarantined": tally.quarantined
            }
            told = ", ".join(f"{number} {reason}" for reason, number in ends.items() if number)
            first = _first_fault(plan)
            raise NothingLeft(f"no document is left of {tally.read} read: {told or 'the sources are empty'}{first}")
        report = _report(plan, tally)
        with appearing(plan.out) as draft:
            for kind, suffix in (("train", "jsonl.gz"), ("heldout", "jsonl.gz"), ("quarantine", "jsonl")):
                _join(plan.files(kind, suffix), draft / f"{kind}.{suffix}")
            write_json(draft / "manifest.json", _manifest(plan, draft, report))
            write_json(draft / "report.json", report)


def _refuse_changed(plan: Plan) -> None:
    """Texts of before and of after a change make no corpus that could be made again."""
    for file, state in _identity_of(plan)["files"].items():
        if state_of(Path(file)) != state:
            raise DataError(f"{file} changed while it was read; run the same command again")


def _first_fault(plan: Plan) -> str:
    """Why the first record was quarantined, for an error."""
    for file in plan.files("quarantine", "jsonl"):
        with open(file, encoding="utf-8") as lines:
            if line := next(lines, ""):
                fault = json.loads(line)
                return f"; the first of them, {fault['place']}, {fault['reason']}"
    return ""


def _total(plan: Plan) -> Tally:
    """Every task's counts together; what was read is what was kept, dropped or quarantined."""
    files = [*plan.files("read", "json"), *plan.files("written", "json")]
    tally = Tally.sum(Tally.from_dict(json.loads(file.read_text(encoding="utf-8"))) for file in files)
    assert tally.read == tally.kept + tally.num_dropped + tally.quarantined, "the totals do not balance"
    return tally


def _report(plan: Plan, tally: Tally) -> dict[str, Any]:
    values = tally.as_dict()
    dropped = {reason: counts.total() for reason, counts in tally.dropped.items()}
    digest = hashlib.sha256("".join(
        side for file in plan.files("digest", "json") for side in json.loads(file.read_text(encoding="utf-8"))
    ).encode())  # fmt: skip
    return {
        **values,
        "dropped": dict(sorted(dropped.items(), key=lambda each: -each[1])),
        "dropped_by_source": values["dropped"],
        "samples": {kind: [each._asdict() for each in samples] for kind, samples in tally.samples.items()},
        "fingerprint": digest.hexdigest()[:16],
        "recipe": plan.settings.identity(),
    }


def _manifest(plan: Plan, draft: Path, report: dict[str, Any]) -> dict[str, Any]:
    """What it takes to make the same bytes again."""
    inputs: dict[str, str] = {}
    for file in plan.files("input", "json"):
        if file.is_file():
            inputs.update(json.loads(file.read_text(encoding="utf-8")))
    hubs = [source for source in plan.settings.sources if source.hub is not None]
    return {
        "recipe": report["recipe"],
        "inputs": [{"path": path, "sha256": digest} for path, digest in inputs.items()],
        "evaluation": _digests(file for texts in plan.settings.evaluation_sets for file in files_of(texts.path)),
        "judging": _digests(judging_files(plan.settings)),
        "hub": [
            {"id": each.hub, "config": each.config, "revision": each.revision, "split": each.split} for each in hubs
        ],
        "outputs": {file.name: file_digest(file) for file in sorted(draft.iterdir())},
        "documents": {key: report[key] for key in ("read", "kept", "train", "heldout", "quarantined")},
        "fingerprint": report["fingerprint"],
        "versions": versions(),
    }


def _digests(files: Iterable[Path]) -> list[dict[str, str]]:
    return [{"path": str(file), "sha256": digest_of(file)} for file in files]


def versions() -> dict[str, str]:
    """Of what decides which texts stay."""
    found = {"python": platform.python_version()}
    for name in ("diffutron", *LIBRARIES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _begin(plan: Plan) -> None:
    """Keep what an earlier build of the same recipe from the same files finished; else start afresh."""
    wanted = identity(plan, versions())
    if _identity_of(plan) != json.loads(json.dumps(wanted)):
        for path in plan.folder.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(plan.folder / "identity.json", wanted)
    if not plan.out.exists():  # it may have been published, and moved away before the build's folder was removed
        shutil.rmtree(plan.folder / "logs" / "publish", ignore_errors=True)


def _identity_of(plan: Plan) -> Any:
    """What the build's folder was begun with; None if that is not known."""
    try:
        return json.loads((plan.folder / "identity.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _progress(plan: Plan, stage: Stage) -> Progress:
    finished = len(list((plan.folder / "logs" / stage.name / "completions").glob("*")))
    if stage.name != "read":
        return Progress(stage.name, finished / stage.num_tasks, 0)
    share, read = 0.0, 0
    for number, file in enumerate(plan.files("progress", "json")):
        with contextlib.suppress(OSError, ValueError):
            reached, documents = json.loads(file.read_text(encoding="utf-8"))
            done = (plan.folder / "logs" / stage.name / "completions" / f"{number:05d}").exists()
            share, read = share + (1.0 if done else reached), read + documents
    return Progress(stage.name, min(share / stage.num_tasks, 1.0), read)


@contextlib.contextmanager
def _only_build(plan: Plan) -> Iterator[None]:
    """Hold the build's folder; the lock goes with the process, whatever ends it."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    with open(plan.folder / "lock", "w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except BlockingIOError:
            raise DataError(f"another build is at work on {plan.out}; wait for it, or choose another folder") from None
        yield


def _join(files: Iterator[Path], out: Path) -> None:
    """Files end to end; gzip files, too, are one then."""
    with open(out, "wb") as whole:
        for file in files:
            with open(file, "rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)
