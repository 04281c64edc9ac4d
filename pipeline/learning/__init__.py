"""Everything that can change what is learned, whatever the approach: the protocol, the loop, the devices, the key.

Each training depends on this whole folder, so nothing that measures, draws, publishes or reports may come in. What
belongs to one approach alone is in `pipeline/approaches`.
"""
