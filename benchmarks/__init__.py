"""Benchmarks: our kernels against a plain C baseline and against peers, on the same buffers in one process."""
