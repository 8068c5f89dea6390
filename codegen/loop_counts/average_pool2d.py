"""Loop counts of the kernels of average_pool2d, which loop as those of max_pool2d do."""

from codegen.loop_counts.max_pool2d import dsp, portable

__all__ = ["dsp", "portable"]
