from nsd.plugins.rewards.correct import Correct


class Harder(Correct):
    pass
