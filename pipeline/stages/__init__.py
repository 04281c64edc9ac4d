"""One short file for a DVC stage: it reads params and files, calls the rooms, and writes files. No room imports it."""
