"""What an evaluation has done so far, kept until all of it is done.

    <state_dir>/evaluation.json     what is evaluated: run, settings, prompts and code
    <state_dir>/epoch_0004/         tables and strip row of a checkpoint

What is there is whole: it is written aside, then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tdpo_pipeline.trainer.state import epoch_of, write_text

STRIP = "strip.npy"


class EvaluationState:
    """The folder of an unfinished evaluation; emptied if it holds another one.

    Args:
        state_dir: The folder; made if it is missing.
        identity: What the evaluation's result depends on, as JSON.
    """

    def __init__(self, state_dir: Path, identity: Mapping[str, Any]) -> None:
        self.state_dir = state_dir
        record = state_dir / "evaluation.json"
        if not record.exists() or json.loads(record.read_text()) != identity:
            self.clear()
            state_dir.mkdir(parents=True)
            write_text(record, json.dumps(identity, indent=2))

    def load(self, epoch: int) -> tuple[dict[str, pd.DataFrame], np.ndarray] | None:
        """Tables by name and strip row of a checkpoint; None if it isn't done."""
        folder = self._folder(epoch)
        if not folder.is_dir():
            return None
        tables = {p.stem: pd.read_parquet(p) for p in folder.glob("*.parquet")}
        return tables, np.load(folder / STRIP)

    def save(
        self, epoch: int, tables: Mapping[str, pd.DataFrame], row: np.ndarray
    ) -> None:
        """Keep what was found of a checkpoint, whole or not at all."""
        partial = self.state_dir / f".epoch_{epoch:04d}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name, table in tables.items():
            table.to_parquet(partial / f"{name}.parquet")
        np.save(partial / STRIP, row)
        os.replace(partial, self._folder(epoch))

    def epochs(self) -> Sequence[int]:
        """The checkpoints that are done."""
        return sorted(epoch_of(path) for path in self.state_dir.glob("epoch_*"))

    def clear(self) -> None:
        """Forget all."""
        shutil.rmtree(self.state_dir, ignore_errors=True)

    def _folder(self, epoch: int) -> Path:
        return self.state_dir / f"epoch_{epoch:04d}"
