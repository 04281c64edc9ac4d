"""One short module for each DVC stage: what it reads, what it does, what it writes."""
