"""The TinyFormer paper's tables and figures, made again with this engine and set beside what the paper prints."""
