"""What lies in a folder of images, and which of it a json that names no existing file may have meant."""

import collections
import functools
import os
import re
import unicodedata

_DECODED = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".gif")
_OTHERS = (".tif", ".tiff", ".webp", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".dng", ".cr2", ".nef")


class Listing:
    """The pictures of a folder and of those in it, by their names' endings.

    Args:
        folder: str.
    """

    def __init__(self, folder):
        self._folder = folder

    @functools.cached_property
    def names(self):
        """list of str relative to the folder, sorted; without hidden files and macOS's leftovers in zips."""
        found = []
        for place, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
            pictures = (
                name for name in files if os.path.splitext(name)[1].lower() in _DECODED + _OTHERS and name[0] != "."
            )
            found += [os.path.relpath(os.path.join(place, name), self._folder) for name in pictures]
        return sorted(found)

    @functools.cached_property
    def _by_name(self):
        found = collections.defaultdict(list)
        for name in self.names:
            found[_key(name)].append(name)
        return found

    def meant(self, file_name):
        """The only picture whose name is that of a missing file but for case, accents' encoding or folder, or None."""
        found = self._by_name[_key(file_name)]
        return found[0] if len(found) == 1 else None

    def others(self, paths):
        """list of str, the pictures that aren't among `paths` (which begin with the folder)."""
        known = {os.path.normpath(os.path.relpath(path, self._folder)) for path in paths}
        return [name for name in self.names if os.path.normpath(name) not in known]


def _key(name):
    # A json from Windows may have its folders' backslashes, one from macOS letters apart from their accents.
    return unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1]).casefold()
