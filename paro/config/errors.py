"""The error a user is meant to read."""


class ParoError(Exception):
    """Bad input, configuration or environment, in one sentence.

    The sentence names the fault, its place and the legal values. The command line prints it alone
    and exits with status 2.
    """
