"""Protocols: how many samples of a question an evaluation draws, and the one value it makes of them."""
