"""How many cycles a core takes for a sequence of instructions (docs/cycle-model.md).

A core's model looks at a basic block and the block before it, once; which blocks follow each other is counted by the
emulator's hook. Waiting for memory is another model's part: `conformance.timing.memory`.
"""
