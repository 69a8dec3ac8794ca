"""What training and evaluation read: a dataset's index -> augmented, padded batches of a tf.data.Dataset.

What other rooms may use:

- `pipeline`: `coco_dataset`, batches of one pass; `TrainingData`, a run's endless stream, which can go on at any step.
- `order`: `Share`, the part of each step's images that one worker loads.
- `map_reader`: `make_label_table`, the class of each value of a label map.
- `rasterize`: `Segmentations` and `crop_masks`, polygons and run lengths as the masks in their boxes.
- `tfrecord_writer`: `write_records`, a COCO dataset as TFRecords.

Inside: sources.py reads what a config names, loader.py one image, geometric.py, augment.py and addons.py change it by
chance (affine.py moves its objects), tfrecord_reader.py and tfrecord_example.py are the Model Garden's record format.
"""
