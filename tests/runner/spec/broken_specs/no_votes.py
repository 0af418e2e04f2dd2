from nsd import Verifier


class Programs(Verifier):
    votes = False
