"""Answers, comparisons and matrices as text, Markdown, CSV and JSON."""
