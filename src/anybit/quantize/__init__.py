"""Weight quantization methods: weight [N, K] + statistics of the layer's inputs -> `QTensor`. `table.METHODS` lists them."""
