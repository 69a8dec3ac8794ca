"""The directives `presets-table` and `refused-presets`, made of mrcnn_tf/weights/presets.yaml."""

from itertools import groupby
from operator import attrgetter

from sphinx.util.docutils import SphinxDirective

from mrcnn_tf.weights import presets

FIGURES = {"box_ap": "box", "mask_ap": "mask", "keypoint_ap": "keypoint", "pq": "PQ"}


def setup(app):
    app.add_directive("presets-table", PresetsTable)
    app.add_directive("refused-presets", RefusedPresets)
    return {"parallel_read_safe": True}


class PresetsTable(SphinxDirective):
    """The models of a publisher, or with the option `backbones` its backbones: name, classes, figures and file."""

    required_arguments = 1
    option_spec = {"backbones": lambda argument: True}

    def run(self):
        is_wanted = {True: lambda preset: preset.config is None, False: lambda preset: preset.config is not None}
        found = [preset for preset in presets.list_presets() if preset.publisher == self.arguments[0]]
        found = list(filter(is_wanted["backbones" in self.options], found))
        figures = [name for name in FIGURES if any(getattr(preset, name) for preset in found)]
        classes = ["classes"] if any(preset.classes for preset in found) else []
        lines = [["name", *classes, *(FIGURES[name] for name in figures), "file"]]
        lines.append(["---"] * len(lines[0]))
        for preset in found:
            values = [getattr(preset, name) for name in figures]
            file = f"[{preset.file}]({preset.address})"
            lines.append([f"`{preset.name}`", *(preset.classes for _ in classes), *(v or "" for v in values), file])
        rows = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
        about = f"Licence: {found[0].licence}. Published at [{found[0].page}]({found[0].page}).\n"
        return self.parse_text_to_nodes("\n".join([about, *rows]))


class RefusedPresets(SphinxDirective):
    """A line for each kind of published model that can't be imported, with their names."""

    def run(self):
        refused = [preset for preset in presets.all_presets() if preset.refused]
        kinds = groupby(sorted(refused, key=attrgetter("refused")), attrgetter("refused"))
        lines = [f"- {kind}: {', '.join(f'`{preset.name}`' for preset in found)}" for kind, found in kinds]
        return self.parse_text_to_nodes("\n".join(lines))
