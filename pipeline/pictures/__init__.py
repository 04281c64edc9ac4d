"""Figures and charts: weights, filters, response maps, answers, curves. Nothing learns or publishes here."""
