"""Kedro's settings for the project."""

from tdpo_pipeline.hooks import PreflightHooks

HOOKS = (PreflightHooks(),)

# Kedro-Viz' own hooks would write a run's status into .viz/ on every run.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-viz",)

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # An environment overrides single values; the rest of a group stays base's.
    "merge_strategy": {"parameters": "soft"},
}
