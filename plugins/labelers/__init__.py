"""Labelers: give unlabeled questions labels, by a vote of samples (`consensus`), from the truth (`noisy_oracle`), or
a sample as it comes (`unfiltered`).
"""
