"""Matrix multiplication outside neural networks."""
