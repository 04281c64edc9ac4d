"""The champion becomes what is served: ONNX, its card, a Bento. Nothing here learns; nothing is published to MLflow."""
