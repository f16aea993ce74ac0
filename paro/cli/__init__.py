"""The command line `paro`: thin commands over the packages that do the work."""
