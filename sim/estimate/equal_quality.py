"""Settings at which attention is as good as in the papers' formats at their mean width."""

__all__ = ["EQUAL_QUALITY_BITS", "PRUNED_DENSITY"]

#: Mean width of our formats, as `paro study formats` finds it.
EQUAL_QUALITY_BITS = 2.64
#: Share of weights that pruning must keep, as `paro study pruning` finds it.
PRUNED_DENSITY = 0.51
