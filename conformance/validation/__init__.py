"""Published measurements against the cycle model's estimates (docs/cycle-model.md)."""
