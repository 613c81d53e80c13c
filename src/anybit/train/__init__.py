"""Low-precision training and quantization-aware training."""
