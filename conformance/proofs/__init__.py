"""Proofs that the primitives in C are what docs/numerics.md says, over their whole domains (docs/proofs.md)."""
