"""The exceptions for what a user can mend."""


class UserError(ValueError):
    """One sentence that names the file, the record and the remedy; the command line prints it and exits with 2."""


class BrokenFile(UserError):
    """A file that can't be read; the others of its folder aren't concerned."""


class NonFiniteLoss(UserError):
    """A loss or gradient became infinite or NaN; the weights are those of the step before."""
