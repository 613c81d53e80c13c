"""Measuring: interleaved rounds, matrix products, whole models, and peers in their own processes."""
