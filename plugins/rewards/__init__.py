"""Rewards: the terms whose weighted sum an RL trainer maximises."""
