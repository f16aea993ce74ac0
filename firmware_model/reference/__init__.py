"""The golden reference: quantisation and integer attention, bit for bit what the RTL computes."""
