"""Tests, intervals and the table that chooses among them: pure functions over arrays."""
