"""From the database to an answer: tests, comparisons, verdicts on hypotheses, and the tables that show them."""
