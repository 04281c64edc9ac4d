"""What sets up, and what makes the pictures and tables of the guides."""
