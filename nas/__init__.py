"""Networks from search spaces: what they consist of, training, pruning, the search, and the export to ONNX.

This is the only package that imports torch, and it does so in the modules that train (`nas.network`, `nas.supernet`,
`nas.training`, `nas.pruning`, `nas.compression` and what they use; `nas.blocks`, `nas.models`, `nas.export` of the
example network), never here: ``import nas`` and ``import nas.cli`` work without torch, as do spaces, sampling,
descriptions, resources (`nas.space`, `nas.sampling`, `nas.layers`, `nas.writer`, `nas.resources`) and the accuracy of
integer models (`nas.evaluate`). Install what is needed with ``pip install "tinyformer[nas]"``. docs/nas.md says more.
"""
