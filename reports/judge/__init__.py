"""From runs in the database to verdicts: pairs, comparisons, claims, the answer; nothing here prints."""
