"""The one error that a user can mend."""


class AfaError(Exception):
    """What is wrong, where, and what to set instead. The CLI prints it alone, without a traceback, and exits with 2."""
