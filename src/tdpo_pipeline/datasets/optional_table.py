"""A CSV table that need not be there."""

from __future__ import annotations

import pandas as pd
from kedro_datasets.pandas import CSVDataset


class OptionalTableDataset(CSVDataset):
    """A CSV table; one without columns and rows where there is no file.

    For what is told apart where it is there and is said to be missing where it isn't,
    such as seconds, which a clone of a study need not have. Arguments are those of
    ``pandas.CSVDataset``.
    """

    def load(self) -> pd.DataFrame:
        """The table."""
        return super().load() if super()._exists() else pd.DataFrame()

    def _exists(self) -> bool:
        """Always: there is nothing that has to be made before it can be loaded."""
        return True
