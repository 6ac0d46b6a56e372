"""Tables that need not be there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tdpo_pipeline.datasets import OptionalTableDataset


def test_what_is_not_there_is_an_empty_table(tmp_path: Path) -> None:
    dataset = OptionalTableDataset(
        filepath=str(tmp_path / "table.csv"), save_args={"index": False}
    )
    assert dataset.exists()
    assert dataset.load().empty
    table = pd.DataFrame({"epoch": [1, 2]})
    dataset.save(table)
    pd.testing.assert_frame_equal(dataset.load(), table)
