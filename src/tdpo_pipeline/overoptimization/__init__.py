"""Is the reward overoptimized? Paired differences, curves and verdicts, on tables.

Everything here takes pandas tables (the history and score tables that training and
evaluation write) and returns pandas tables. Nothing needs Kedro or PyTorch.
"""

from tdpo_pipeline.overoptimization.agreement import pairwise_agreement
from tdpo_pipeline.overoptimization.alarms import count_alarms, judge_alarms
from tdpo_pipeline.overoptimization.comparison import (
    Power,
    compare_methods,
    compare_report,
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
from tdpo_pipeline.overoptimization.efficiency import COSTS, cost_report
from tdpo_pipeline.overoptimization.goodhart import (
    fit_goodhart,
    goodhart_bands,
    goodhart_report,
)
from tdpo_pipeline.overoptimization.histories import check_history
from tdpo_pipeline.overoptimization.intervals import (
    Bootstrap,
    Estimate,
    PeakDrop,
    drop_from_peak,
    paired_difference,
)
from tdpo_pipeline.overoptimization.matched import (
    furthest_levels,
    matched_curves,
    matched_differences,
    matched_report,
)
from tdpo_pipeline.overoptimization.onset import find_onsets
from tdpo_pipeline.overoptimization.pareto import (
    hypervolume,
    hypervolume_report,
    hypervolumes,
    joint_outcomes,
    joint_report,
    on_front,
    pareto_points,
)
from tdpo_pipeline.overoptimization.paths import AXES
from tdpo_pipeline.overoptimization.sequential import Alarm, first_alarm
from tdpo_pipeline.overoptimization.stopping import (
    alarm_of_run,
    stopping_regrets,
    stopping_report,
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
    MAIN_ETA,
    ScoreTableError,
    check_scores,
    gold_of,
    group_label,
    known_rewards,
    reward_columns,
    with_group,
)

__all__ = [
    "AXES",
    "COSTS",
    "GROUPS",
    "MAIN_ETA",
    "METHOD",
    "RUN",
    "Alarm",
    "Bootstrap",
    "Cube",
    "Estimate",
    "PeakDrop",
    "Power",
    "ScoreTableError",
    "alarm_of_run",
    "check_history",
    "check_scores",
    "compare_methods",
    "compare_report",
    "cost_report",
    "count_alarms",
    "cubes",
    "drop_from_peak",
    "final_rows",
    "find_onsets",
    "first_alarm",
    "fit_goodhart",
    "furthest_levels",
    "gold_of",
    "gold_report",
    "goodhart_bands",
    "goodhart_report",
    "group_label",
    "holm",
    "hypervolume",
    "hypervolume_report",
    "hypervolumes",
    "in_base_sd",
    "interquartile_mean",
    "joint_outcomes",
    "joint_report",
    "judge_alarms",
    "known_rewards",
    "matched_curves",
    "matched_differences",
    "matched_report",
    "neuron_curves",
    "on_front",
    "paired_difference",
    "pairwise_agreement",
    "pareto_points",
    "probability_of_improvement",
    "reward_columns",
    "reward_curves",
    "seeds_needed",
    "stopping_regrets",
    "stopping_report",
    "summarise_methods",
    "summarise_regrets",
    "summarise_runs",
    "training_curves",
    "verdict",
    "with_group",
]
