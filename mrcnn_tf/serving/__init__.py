"""Export, and what runs exports.

- `saved_model_export.export_saved_model` writes a SavedModel for TensorFlow Serving; `served_graph.ServedGraph`
  describes its outputs. `tflite_export.export_tflite` writes TFLite files.
- `runtime.SavedModelRuntime`, `server_client.ServedModel` and `tflite_model.TFLiteModel` run them, with `detect` as a
  `MaskRCNN`.
- `export_labels`: labels.json of an export, written and read; `outputs.make_detections` needs it to read the outputs.
- `interpreter`: a TFLite file in the LiteRT interpreter, without TensorFlow.
- `export_check.check_detections` compares an exported model with the Keras model.
"""
