"""An algorithm whose second process crashes in the second epoch, if it is asked to."""

from __future__ import annotations

import os

from torch import Tensor

from tdpo_pipeline import distributed
from tdpo_pipeline.algorithms.tdpo import Tdpo
from tdpo_pipeline.diffusion.trajectory import Trajectory


class Crashing(Tdpo):
    """TDPO, until it crashes."""

    def update(
        self, epoch: int, trajectory: Trajectory, rewards: Tensor
    ) -> dict[str, float]:
        """An epoch of TDPO, or a crash of one process."""
        if "CRASH" in os.environ and epoch == 2 and distributed.rank() == 1:
            raise MemoryError("out of memory on purpose")
        return super().update(epoch, trajectory, rewards)
