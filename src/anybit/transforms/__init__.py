"""Function-preserving rewrites of a model's weights, applied before quantization."""
