"""Weight quantization methods: weight [N, K] and statistics of the layer's inputs -> `QTensor`; `table` lists
them.
"""
