"""What is known of the annotations when they are looked at one by one: columns, masks, images, and what is wrong."""

import dataclasses

import numpy as np

from mrcnn_tf.datasets.checks import Checker
from mrcnn_tf.datasets.doctor.findings import Findings
from mrcnn_tf.datasets.doctor.outlines import Outlines
from mrcnn_tf.datasets.doctor.reading import Records


@dataclasses.dataclass
class Annotated:
    """The annotations of a dataset, T of them with columns.

    Attributes:
        records: reading.Records.
        checker: data.checks.Checker; `kept` says which annotations are usable, `boxes` are their clipped corners.
        outlines: Outlines of all T.
        findings: where problems go.
        rows: {kind: rows of the annotations that have it}.
    """

    records: Records
    checker: Checker
    outlines: Outlines
    findings: Findings
    rows: dict[str, np.ndarray]

    def note(self, kind, chosen, sentence, **columns):
        """A problem for each of the `chosen` [T] bool annotations.

        Args:
            kind: of `annotation_kinds.ANNOTATIONS`.
            chosen: [T] bool.
            sentence: goes on after "Annotation 5 in a.json " and may use {image}, {category} and the `columns` [T] by
                name.
        """
        columns = {"image": self.checker.image_ids, "category": self.checker.category_ids, **columns}
        rows = np.flatnonzero(chosen)
        if rows.size:
            self.rows[kind] = rows
        for row in rows.tolist():
            record, file, name = self.records.whereabouts(row)
            detail = sentence.format(**{key: column[row] for key, column in columns.items()})
            self.findings.add(kind, record, f"{name} {detail}.", file)

    def turn_away(self, kind, chosen, sentence, **columns):
        """As `note`, for annotations that can't be used."""
        chosen = chosen & self.checker.kept
        self.note(kind, chosen, sentence, **columns)
        self.checker.kept &= ~chosen
