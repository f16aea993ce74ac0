"""Quality of quantised attention: `metrics`, heads under a plan (`planned`, `evaluate`), `study`.

The studies compare number formats, masks, ablations, pruning and plans that carry over.
"""
