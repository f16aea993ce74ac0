"""Quality: metrics, evaluation of a plan, and the studies that compare formats and methods."""
