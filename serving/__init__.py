"""The champion behind HTTP: bentoml, onnxruntime, numpy and pillow; nothing of the pipeline."""
