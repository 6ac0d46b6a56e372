"""Policies, guidance, the sampler and its trajectories."""
