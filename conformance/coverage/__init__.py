"""What of the C kernels the `ci` profile's cases reach: lines, branches, assembly (docs/coverage.md)."""
