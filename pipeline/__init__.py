"""Car or truck? The lecture's three representations of an image, from download to packaged model."""
