"""Mixed precision: layers that compute in half precision and keep their weights in float32.

>>> set_global_policy("mixed_bfloat16")
>>> global_policy().compute_dtype, global_policy().variable_dtype
('bfloat16', 'float32')
>>> set_global_policy(None)
"""

from __future__ import annotations

from lamina.layers.policy import DTypePolicy, global_policy, set_global_policy

Policy = DTypePolicy
dtype_policy = global_policy
set_dtype_policy = set_global_policy

__all__ = [
    "DTypePolicy",
    "Policy",
    "dtype_policy",
    "global_policy",
    "set_dtype_policy",
    "set_global_policy",
]
