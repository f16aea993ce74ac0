"""The golden reference: quantisation and integer attention, bit for bit as in the RTL.

`quantize` prepares a head, `digits` has the values of its narrow operands, `integer` computes.
Beside it stand exact attention (`attention`), the papers' formats (`number_formats`), and one
interface to all of them (`methods`).
"""
