"""Calibration: from captures and a budget to a plan of orders, transforms and bits per block.

`calibrate` makes plans (`plan`) that meet a goal (`goal`). For each head it tries orders and
transforms (`trials`, `order`) and measures the errors of blocks (`sensitivity`, `cells`);
`allocation` spends the budget on the blocks of all heads.
"""
