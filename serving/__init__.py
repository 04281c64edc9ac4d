"""The service that answers HTTP requests with the champion. It imports nothing from the pipeline."""
