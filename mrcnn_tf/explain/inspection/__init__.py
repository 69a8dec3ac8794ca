"""A look at a dataset and at what a model makes of it: errors, confusion, curves, the worst images, and a report.

`inspect_data.inspect_data` does all of it for `mrcnn-tf inspect`, from a model or from the files of an evaluation. By
themselves: `dataset_statistics` of a dataset; `detection_matching`, `curves` and `detection_errors` of detections;
`region_matching` of segments.
"""
