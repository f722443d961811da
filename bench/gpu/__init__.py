"""The benchmark on a GPU: the table of layers and networks that the kernels there are judged by."""
