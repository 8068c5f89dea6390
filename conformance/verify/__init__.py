"""Pre-flash validation: one command that says whether an image is safe, with evidence for people and for CI systems."""
