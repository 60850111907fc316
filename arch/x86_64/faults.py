"""The page-fault error code (Intel SDM volume 3A 5.7; AMD APM volume 2 8.4.2) and the exceptions a walk can raise."""

from __future__ import annotations

from ..layout import Layout, bit, merge, res0

PF_ERROR_CODE = Layout(
    "PF_ERROR_CODE", bit("P"), bit("WR"), bit("US"), bit("RSVD"), bit("ID"), bit("PK"), bit("SS"), bit("HLAT"),
    res0(7), bit("SGX"), res0(15), bit("RMP"), title="page-fault error code",
    source="Intel SDM volume 3A 5.7; AMD APM volume 2 8.4.2",
)  # fmt: skip
NPF_EXITINFO1 = Layout(
    "NPF_EXITINFO1", bit("P"), bit("WR"), bit("US"), bit("RSVD"), bit("ID"), res0(), bit("SS"), res0(24), bit("RMP"),
    bit("FINAL"), bit("TABLE"), bit("ENC"), bit("SIZEM"), bit("VMPL"), bit("SSS"), res0(26),
    title="EXITINFO1 of a nested page fault", source="AMD APM volume 2 15.25.6",
)  # fmt: skip
VECTORS = {12: "#SS", 13: "#GP", 14: "#PF"}

LAYOUTS = merge(PF_ERROR_CODE, NPF_EXITINFO1)
