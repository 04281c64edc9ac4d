"""MLflow as a view of the results: live curves, publishing, repair, the registered model.

No result depends on this room. MLflow's data can be deleted and built again from the result folders.
"""
