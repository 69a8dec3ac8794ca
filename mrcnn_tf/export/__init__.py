"""Makes files of models for where there is no Keras: SavedModel for TensorFlow Serving, TFLite for the edge."""
