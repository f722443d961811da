"""The error for what a user of the command line can mend: a file, an option, a configuration."""


class InputError(ValueError):
    """A file, option or configuration that cannot be used; the message says which, what came and what was expected.
    The command line prints it as one line."""
