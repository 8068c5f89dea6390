"""Test vectors for any engine: a suite on disk, what must be refused included, and a runner (docs/vectors.md)."""
