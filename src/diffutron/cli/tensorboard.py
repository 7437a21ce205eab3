"""``train --tensorboard``: the records of ``metrics.jsonl`` for TensorBoard too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardLog:
    """Writes event files into ``tensorboard/`` of the run folder.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, run_folder: Path) -> None:
        from diffutron.errors import InputError

        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("--tensorboard needs: pip install 'diffutron[tensorboard]'") from None
        self._make_writer = SummaryWriter
        self.folder = run_folder / "tensorboard"
        self.writer: SummaryWriter | None = None

    def write(self, record: dict[str, Any]) -> None:
        step = record["step"]
        if self.writer is None:
            # What an interrupted run wrote after its last checkpoint is done again.
            self.writer = self._make_writer(str(self.folder), purge_step=step)
        for name, value in record.items():
            if name == "samples":
                for sample in value:
                    self.writer.add_text(sample["prompt"] or "(no prompt)", sample["text"], step)
            elif name == "loss_by_rate":
                for tenth, loss in enumerate(value, start=1):
                    if loss is not None:
                        self.writer.add_scalar(f"loss_by_rate/{10 * tenth}", loss, step)
            elif isinstance(value, float):
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
