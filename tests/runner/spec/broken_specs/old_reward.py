from nsd import Reward


class Length(Reward):
    def rewards(self, completions, questions, truncated, verifier):
        return [len(text) for text in completions]
