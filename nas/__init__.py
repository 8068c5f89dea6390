"""Networks in PyTorch: building blocks, data, training and the export to ONNX.

This is the only package that imports torch, and it does so in the modules that need it (`nas.blocks`, `nas.models`,
`nas.training`, `nas.export`), never here: ``import nas`` and ``import nas.cli`` work without torch. Install what it
needs with ``pip install "tinyformer[nas]"``.

Modules: `nas.data` reads labelled images, `nas.blocks` holds the layers of the TinyFormer search space, `nas.models`
assembles networks from them, `nas.training` trains with checkpoints that resume, `nas.export` writes float ONNX.
"""
