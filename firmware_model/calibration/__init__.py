"""Calibration: from captures and a budget to a plan of orders, transforms and bits per block."""
