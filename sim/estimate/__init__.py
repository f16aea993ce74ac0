"""Estimates: time and area of whole models, sweeps over machines, and peers to compare with."""
