"""Is the reward overoptimized? Paired differences, curves and verdicts, on tables.

Everything here takes pandas tables (the history and score tables that training and
evaluation write) and returns pandas tables. Nothing needs Kedro or PyTorch.
"""

from tdpo_pipeline.overoptimization.comparison import (
    Power,
    compare_methods,
    holm,
    interquartile_mean,
    probability_of_improvement,
    seeds_needed,
)
from tdpo_pipeline.overoptimization.cubes import Cube, cubes
from tdpo_pipeline.overoptimization.curves import (
    METHOD,
    RUN,
    in_base_sd,
    neuron_curves,
    reward_curves,
    training_curves,
)
from tdpo_pipeline.overoptimization.goodhart import fit_goodhart, goodhart_bands
from tdpo_pipeline.overoptimization.intervals import (
    Bootstrap,
    Estimate,
    PeakDrop,
    drop_from_peak,
    paired_difference,
)
from tdpo_pipeline.overoptimization.matched import (
    AXES,
    matched_curves,
    matched_differences,
)
from tdpo_pipeline.overoptimization.onset import find_onsets
from tdpo_pipeline.overoptimization.pareto import (
    hypervolume,
    hypervolumes,
    joint_outcomes,
    on_front,
    pareto_points,
)
from tdpo_pipeline.overoptimization.sequential import Alarm, first_alarm
from tdpo_pipeline.overoptimization.stopping import (
    alarm_of_run,
    stopping_regrets,
    summarise_regrets,
)
from tdpo_pipeline.overoptimization.summary import (
    final_rows,
    gold_report,
    summarise_methods,
    summarise_runs,
    verdict,
)
from tdpo_pipeline.overoptimization.tables import (
    GROUPS,
    TRAINING_ETA,
    ScoreTableError,
    check_scores,
    gold_of,
    group_label,
    reward_columns,
    with_group,
)

__all__ = [
    "alarm_of_run",
    "stopping_regrets",
    "summarise_regrets",
    "find_onsets",
    "hypervolume",
    "hypervolumes",
    "joint_outcomes",
    "on_front",
    "pareto_points",
    "Alarm",
    "first_alarm",
    "fit_goodhart",
    "goodhart_bands",
    "Power",
    "compare_methods",
    "holm",
    "interquartile_mean",
    "probability_of_improvement",
    "seeds_needed",
    "AXES",
    "Cube",
    "check_scores",
    "cubes",
    "matched_curves",
    "matched_differences",
    "GROUPS",
    "METHOD",
    "RUN",
    "TRAINING_ETA",
    "Bootstrap",
    "Estimate",
    "PeakDrop",
    "ScoreTableError",
    "neuron_curves",
    "drop_from_peak",
    "final_rows",
    "gold_of",
    "gold_report",
    "group_label",
    "in_base_sd",
    "paired_difference",
    "reward_columns",
    "reward_curves",
    "summarise_methods",
    "summarise_runs",
    "training_curves",
    "verdict",
    "with_group",
]
