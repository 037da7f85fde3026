"""Fair between tenants, inside priority: the tenant that was served least goes first, and inside it the earliest latest start.

Service is counted by `core.fairness` (VTC, OSDI'24). Fairness reorders only while slack allows: a request that would start too
late otherwise goes first. With one tenant this is `deadline`.
"""

from __future__ import annotations

from typing import ClassVar

from penstock.policy.order.deadline import Deadline


class Fair(Deadline):
    between_tenants: ClassVar[bool] = True
