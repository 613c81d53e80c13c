"""How many bits each part of a model deserves: sensitivity metrics and solvers that work on tables of numbers."""

from anybit.allocate.solvers.ilp import solve

__all__ = ["solve"]
