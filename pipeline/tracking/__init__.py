"""MLflow as a view of the results: live curves, publishing, repair, the registered model.

No result depends on this room: MLflow may be deleted and is built again from the result folders.
"""
