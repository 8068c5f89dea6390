"""Mutation testing of the golden model: of how many small faults does the second opinion find each."""
