"""Quality of quantised attention: `metrics`, `evaluate` (heads under a plan) and `study`.

The studies compare number formats, masks, ablations, pruning and plans that carry over.
"""
