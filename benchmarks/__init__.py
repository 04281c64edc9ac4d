"""Measurements that take longer than tests may; each writes a Markdown page here and says how it was made."""
