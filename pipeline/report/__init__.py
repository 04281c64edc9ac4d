"""The lecture told again with the pictures and numbers of one run: one HTML file. Only the stage `report` uses it."""
