"""Why a checkpoint can't be read."""




class Refusal(Exception):
    """One clause on the fault and its remedy; `read_checkpoint` puts the file's name before it, as a `UserError`."""
