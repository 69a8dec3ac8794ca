"""Datasets of other tools to COCO's json, and back: a module for each format.

Each has a function that reads the format into a `dataset.Dataset`, whose `write(path)` gives COCO's json:
`labelme.read_labelme`, and so on in `cvat`, `label_studio`, `via`, `yolo`, `voc`, `mask_folders`, `label_map_folders`,
`cityscapes`, `mapillary` and `open_images`. Some write it, too, from a `coco.CocoJson`, which `coco.read_coco` reads:
`labelme.write_labelme`, and so on in `via`, `yolo`, `voc`, `mask_folders` and `label_map_folders`. To add a format, add
such a module and say in `inputs.recognise_format` what tells it from others. Or keep it to yourself: `mrcnn-tf convert
with my_module:read` calls any function that is a reader. This is what to make one of:

- `Dataset` collects images (`add_image`, or `add_image_of_size`, which compares the file with its annotations), objects
  (`add_object`) and what isn't used (`leave_out`, `leave_out_record`), and reads an image's size (`read_frame`).
- `ImageFolder` finds the images that annotations name, and says their names relative to the folder.
- `existing_path` refuses a source that isn't there or is packed; `read_text`, `read_json` and `read_xml` read a file.
- `splits.choose_split` gives the split that was asked for, or refuses to join several.
- `BrokenFile` is what `read_text`, `read_json` and `read_xml` raise for one that can't be read, a `UserError`.

Masks of pixels go to `add_object` as run lengths, which `mrcnn_tf.datasets.run_lengths.encode` makes, and `encode_crop`
of a crop. Keypoints go there by name; their order is that of their first appearance, or that of `names`.

Readers take `source`, the file or folder to read; `images`, the folder that file names will be relative to (None for
that of the source); and `names`, the `dataset.ClassNames` that classes get their ids from and others are left out
(`dataset.read_names` reads them; None for any class). What can't be used is noted in the Dataset's `problems`. They
raise UserError if the source isn't there, is packed, or isn't of the format.

Writers take the CocoJson, where they note what the format can't hold; `out`, a new folder; `images`, the folder of the
images; and `copy_images`, whether images go into the new folder, too. Images that aren't there are left out then. They
raise UserError if `out` has files already, there is no folder of images, or two images would get the same file.

The doctor uses `inputs` to tell what a file is that isn't COCO's.
"""

from mrcnn_tf.datasets.convert.dataset import Dataset
from mrcnn_tf.datasets.convert.inputs import BrokenFile, existing_path, read_json, read_text, read_xml
from mrcnn_tf.datasets.image_folder import ImageFolder

__all__ = ["BrokenFile", "Dataset", "ImageFolder", "existing_path", "read_json", "read_text", "read_xml"]
