"""What is counted image by image, handed from one process to another."""

import json


class ImageCounts:
    """Counts by image; those that measure something fill `_counts`, {image id: lists of plain numbers}."""

    def __init__(self):
        self._counts = {}

    def to_bytes(self):
        """All that was counted, for another process to `merge`."""
        return json.dumps(list(self._counts.items())).encode()

    def merge(self, data):
        """Adds what another one of the same categories gave as `to_bytes`; an image of both counts once."""
        self._counts = dict(json.loads(data)) | self._counts
