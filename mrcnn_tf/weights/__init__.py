"""Published weights: readers of their files, and the rules by which each origin's tensors become this package's.

This room knows arrays, paths and settings, and lies below the model. Others use of it:

- `fit.load_into` puts weights into a model; `fit.LoadReport` says what became of each of them.
- `pretrained.read_pretrained` reads weights of any origin; its `PretrainedWeights.config` is the config they were made
  for. `pretrained.weight_path` names a model's weight.
- `facts.overrides_by_origin` groups what is known of imported weights by where it is known from.
- `presets.list_presets` lists the published models, and `presets.Preset` describes one. `presets.locate` gives the file
  that a user names; `download`, below it, is the only module that fetches weights, and does so when one is named.
- `architecture` has COCO's classes, as detectors were trained on them: `COCO_80`, `COCO_90`, `COCO_STUFF`, `PERSON`.
- `keras_applications` makes networks of keras.applications by name (`make_network`, `feature_network`,
  `stable_layer_names`), for backbones that are copies of them.

No module imports Keras when it is imported: whatever registers layers with it comes first.
"""
