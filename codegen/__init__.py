"""From model files to C: import, quantise, plan memory, generate."""
