"""Float64 softmax attention, the truth that every format is measured against."""

import torch

from firmware_model.parallel import map_rows

#: Rows computed at once: bounds the memory to this times the number of keys.
ROWS_AT_ONCE = 512


def reference_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """Exact attention of one head.

    Parameters
    ----------
    q, k, v : torch.Tensor
        [tokens, head_dim], any float type.
    scale : float
        Factor of the logits.
    rows : torch.Tensor, optional
        int64 [rows]: queries to compute; all by default.

    Returns
    -------
    torch.Tensor
        float64 [rows, head_dim].
    """
    queries = (q if rows is None else q[rows]).double() * scale
    keys, values = k.double().T.contiguous(), v.double()

    def output(part: torch.Tensor) -> torch.Tensor:
        return torch.softmax(part @ keys, dim=1) @ values

    return torch.cat(map_rows(output, queries.split(ROWS_AT_ONCE)))
