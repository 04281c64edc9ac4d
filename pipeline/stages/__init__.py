"""One short file per DVC stage. It reads params and files, calls the rooms, and writes files. No room imports it."""
