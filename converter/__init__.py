"""The converter: ONNX in, a small typed portable graph out."""
