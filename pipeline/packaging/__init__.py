"""Packaging the champion for serving: ONNX, its card, a Bento. The code here neither learns nor publishes to MLflow."""
