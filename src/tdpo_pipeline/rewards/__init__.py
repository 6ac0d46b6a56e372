"""Rewards: one contract, one registry, one file per scorer."""
