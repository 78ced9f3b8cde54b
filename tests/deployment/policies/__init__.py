"""What every rendering must hold to, beyond its schemas: each policy yields what is wrong."""

from collections.abc import Callable, Iterator

from tests.deployment.manifests import Manifests
from tests.deployment.policies.network import isolated, selected
from tests.deployment.policies.pods import (
    mounted,
    pinned,
    probed,
    roomy,
    secured,
    sized,
    stopped_in_time,
)
from tests.deployment.policies.scaling import measured, scaled, spread
from tests.deployment.policies.settings import commanded, configured, discreet

Policy = Callable[[Manifests], Iterator[str]]

POLICIES: tuple[Policy, ...] = (
    *(secured, sized, roomy, pinned, probed, stopped_in_time, mounted),
    *(selected, isolated),
    *(configured, discreet, commanded),
    *(scaled, measured, spread),
)

__all__ = ["POLICIES", "Policy"]
