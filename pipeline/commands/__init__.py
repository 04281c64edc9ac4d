"""What people type that is not a DVC stage: `make sweep`, `make verify`, `make sync`, `make ui`. No room imports it."""
