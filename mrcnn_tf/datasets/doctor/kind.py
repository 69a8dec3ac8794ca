"""A kind of problem, and how bad it can be."""

import dataclasses

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        severity: ERROR: the trainer skips the record or can't use it; WARNING: it is used and is probably a mistake;
            NOTE: worth knowing.
        unit: what is counted: image, annotation, category, file or dataset.
        title: what such a record is or does, after "12 images ...".
        remedy: what the user should do.
        mended: what `--fix` does; empty where it does nothing.
    """

    severity: str
    unit: str
    title: str
    remedy: str
    mended: str = ""
