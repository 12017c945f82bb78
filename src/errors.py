"""The one exception for a user's mistake."""


class UserError(ValueError):
    """A wrong value, file or key of the user's; its message is one sentence: what, where, and the cure.

    Commands print the message and exit with code 2. Every other exception is a bug and keeps its traceback.
    """
