"""Graph passes: pure functions refsim.Graph -> refsim.Graph, each of which keeps the outputs byte for byte."""

from codegen.passes.attention import fuse_attention
from codegen.passes.constants import fold_constants
from codegen.passes.flatten import permute_flattened_weights
from codegen.passes.identities import drop_identities
from codegen.passes.optimize import optimize
from codegen.passes.ports import absorb_input_transposes
from codegen.passes.tables import merge_tables
from codegen.passes.transposes import sink_transposes
from codegen.passes.unused import drop_unused

__all__ = [
    "absorb_input_transposes",
    "drop_identities",
    "drop_unused",
    "fold_constants",
    "fuse_attention",
    "merge_tables",
    "optimize",
    "permute_flattened_weights",
    "sink_transposes",
]
