"""All shared code that can change what a model learns: the types of an approach, the loop, the devices, the key.

Every training depends on this whole folder, so code that measures, draws, publishes or reports must not be here. The
code of a single approach is in `pipeline/approaches`.
"""
