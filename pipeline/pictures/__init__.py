"""Figures and charts: weights, filters, response maps, answers, curves. The code here neither learns nor publishes."""
