"""What was learned is read and measured here: the result folder, its metrics, the leaderboard, known facts.

Neither torch nor MLflow may come in: a stage that only measures starts in a second.
"""
