"""Labelers: give unlabeled questions labels, by a vote of samples (`consensus`) or from the truth (`noisy_oracle`)."""
