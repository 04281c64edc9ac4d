"""The report: the lecture with the pictures and numbers of one run, as one HTML file. Only stage `report` uses it."""
