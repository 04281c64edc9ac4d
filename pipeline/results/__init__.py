"""Reading and measuring results: the result folder, its metrics, the leaderboard, known facts.

This room imports neither torch nor MLflow, so that a stage that only measures starts in a second.
"""
