"""Conformance: does the C equal the golden model, byte for byte? Places to run it, test cases, suites and reports."""
