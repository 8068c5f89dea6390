"""A firmware that boots on its own around a generated model or another program: vector table, start-up, semihosting."""
