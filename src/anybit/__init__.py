"""anybit: matrix multiplication at any precision, from the number format to silicon.

Importing this package loads neither torch nor jax; each floor is imported by name (`anybit.formats`, `anybit.models`, …).
"""

__version__ = "0.1.0"
