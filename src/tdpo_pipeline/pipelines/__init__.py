"""Kedro pipelines: nodes load, call the library and return."""
