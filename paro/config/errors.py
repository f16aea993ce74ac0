"""The error a user is meant to read."""


class ParoError(Exception):
    """Bad input, configuration or environment, told in one sentence.

    The sentence names what was wrong, where, and what is legal. The command line prints it alone
    and exits with status 2.
    """
