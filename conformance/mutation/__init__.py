"""Mutation testing of the C kernels: of how many small faults does the `ci` profile find each (docs/mutation.md)."""
