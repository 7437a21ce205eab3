"""Who works: processes here, or a cluster, by datatrove's executors. Finished tasks are never done again."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor.base import DistributedEnvVars, PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from diffutron.corpus.settings import ExecutorSettings, LocalSettings, RaySettings, SlurmSettings
from diffutron.errors import DataError

ATTEMPTS = 3
"""how often tasks are begun again after a worker was killed"""


@dataclass(frozen=True)
class Stage:
    """One pipeline of blocks over so many tasks."""

    name: str
    pipeline: Sequence[PipelineStep]
    num_tasks: int


class LocalExecutor(PipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor, but a killed worker ends in a new one instead of waiting for ever, one worker needs
    no second process, and the log is kept off the screen."""

    def __init__(self, stage: Stage, workers: int, logs: Path) -> None:
        super().__init__(list(stage.pipeline), str(logs))
        self.stage, self.workers = stage, workers

    @property
    def world_size(self) -> int:
        return self.stage.num_tasks

    def get_distributed_env(self, node_rank: int = -1) -> DistributedEnvVars:
        return DistributedEnvVars(
            datatrove_node_ips="localhost", datatrove_cpus_per_task="1", datatrove_mem_per_cpu="-1",
            datatrove_gpus_on_node="-1", datatrove_executor="LOCAL",
        )  # fmt: skip

    def run(self) -> None:
        """Run what is not finished.

        Raises:
            DataError: workers were killed again and again.
        """
        for _ in range(ATTEMPTS):
            left = self.get_incomplete_ranks()
            try:
                if self.workers > 1 and len(left) > 1:
                    self._run_in_processes(left)
                else:
                    for rank in left:
                        deepcopy(self).run_task(rank)
                return
            except BrokenProcessPool:
                continue
        left = self.get_incomplete_ranks()
        raise DataError(
            f"workers of the step {self.stage.name!r} were killed {ATTEMPTS} times, perhaps for lack of memory; "
            f"{len(left)} of {self.world_size} tasks are left: run the command again, with fewer workers"
        )

    def _run_in_processes(self, ranks: list[int]) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.workers, len(ranks)), mp_context=context) as pool:
            futures = [pool.submit(self.run_task, rank) for rank in ranks]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def run_task(self, rank: int) -> None:
        """One task, in whatever process this is."""
        logger.disable("datatrove")
        self._run_for_rank(rank)


def run_stages(
    stages: Sequence[Stage], settings: ExecutorSettings, logs: Path, *,
    on_tick: Callable[[Stage], None] = lambda _: None, tick_seconds: float = 0.5,
) -> list[str]:  # fmt: skip
    """Run the stages one after the other, or hand them to a cluster.

    Tasks that are finished are not done again, and none is handed in while the jobs of an earlier call wait or run.

    Args:
        on_tick: called about twice a second from another thread while a stage runs here.

    Returns:
        what is left, such as ``read 3 of 12``: nothing, or what a cluster works on.
    """
    logger.disable("datatrove")  # it talks to the screen
    if isinstance(settings, LocalSettings):
        for stage in stages:
            with _ticking(lambda stage=stage: on_tick(stage), tick_seconds):  # type: ignore[misc]
                LocalExecutor(stage, settings.workers, logs / stage.name).run()
    elif isinstance(settings, RaySettings):
        for stage in stages:
            _ray(stage, settings, logs / stage.name).run()
    else:
        _run_on_slurm(stages, settings, logs)
    counts = [(stage, LocalExecutor(stage, 1, logs / stage.name)) for stage in stages]
    left = [(stage, len(executor.get_incomplete_ranks())) for stage, executor in counts]
    return [f"{stage.name} {number} of {stage.num_tasks}" for stage, number in left if number]


def _run_on_slurm(stages: Sequence[Stage], settings: SlurmSettings, logs: Path) -> None:
    """Hand in an array of jobs for each stage, to begin when the one before has ended well."""
    handed_in = logs / "jobs.json"
    if handed_in.is_file() and _in_the_queue(json.loads(handed_in.read_text(encoding="utf-8"))):
        return
    executors = list[Any]()
    for stage in stages:
        executors.append(_slurm(stage, settings, logs / stage.name, executors[-1] if executors else None))
    try:
        executors[-1].run()
    except FileNotFoundError as error:
        raise DataError(f"the executor slurm needs the command {error.filename}, which is not here") from None
    except subprocess.CalledProcessError as error:
        raise DataError(f"Slurm took no jobs: sbatch ended with {error.returncode}") from None
    jobs = [str(executor.job_id) for executor in executors if executor.job_id not in (None, -1)]
    handed_in.parent.mkdir(parents=True, exist_ok=True)
    handed_in.write_text(json.dumps(jobs), encoding="utf-8")


def _in_the_queue(jobs: list[str]) -> bool:
    """Whether some of the jobs wait or run. Slurm no longer knows jobs that ended some minutes ago."""
    command = ["squeue", "--noheader", "--jobs=" + ",".join(jobs)]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ids are Slurm's
    except FileNotFoundError:
        return False
    return asked.returncode == 0 and bool(asked.stdout.strip())


def _slurm(stage: Stage, settings: SlurmSettings, logs: Path, before: Any) -> Any:
    from datatrove.executor.slurm import SlurmPipelineExecutor

    return SlurmPipelineExecutor(
        list(stage.pipeline), tasks=stage.num_tasks, time=settings.time, partition=settings.partition,
        cpus_per_task=settings.cpus_per_task, mem_per_cpu_gb=settings.mem_per_cpu_gb, workers=settings.workers,
        venv_path=str(settings.venv.absolute() / "bin" / "activate") if settings.venv else None,
        job_name=f"corpus-{stage.name}", logging_dir=str(logs), slurm_logs_folder=str(logs / "slurm"), depends=before,
        # What waits for a stage that failed would wait for ever.
        sbatch_args={"kill-on-invalid-dep": "yes"},
    )  # fmt: skip


def _ray(stage: Stage, settings: RaySettings, logs: Path) -> Any:
    try:
        from datatrove.executor.ray import RayPipelineExecutor
    except ImportError:
        raise DataError("the executor ray needs: pip install 'datatrove[ray]'") from None
    return RayPipelineExecutor(
        list(stage.pipeline), tasks=stage.num_tasks, workers=settings.workers, cpus_per_task=settings.cpus_per_task,
        logging_dir=str(logs),
    )  # fmt: skip


class _ticking:
    """Calls a function every few moments from another thread until the block ends."""

    def __init__(self, tick: Callable[[], None], seconds: float) -> None:
        self._tick, self._seconds, self._over = tick, seconds, threading.Event()

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._tick()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self._tick()
