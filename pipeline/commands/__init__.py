"""Commands that are not DVC stages: `make sweep`, `make verify`, `make sync`, `make ui`. No room imports them."""
