"""provider_node_share, int8_node_share: is the variant what it claims to be?"""

from __future__ import annotations

from autopilot.contracts import Axis, Stage
from autopilot.profile import Measurement, Profile

PROVIDER_SHARE = Axis("provider_node_share", True, Stage.SMOKE, "share of nodes on the execution provider asked for")
INT8_SHARE = Axis("int8_node_share", True, Stage.QUALITY, "share of matrix products that run in integer kernels")


class PlacementMeter:
    """Reads ``Profile.placement`` (with ``environment["execution_provider"]``) and ``Profile.int8``."""

    name = "placement"
    axes: tuple[Axis, ...] = (PROVIDER_SHARE, INT8_SHARE)

    def axis(self, name: str) -> Axis | None:
        return next((a for a in self.axes if a.name == name), None)

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        return self._int8(profile) if axis == INT8_SHARE.name else self._provider(profile)

    @staticmethod
    def _provider(profile: Profile) -> Measurement:
        wanted = profile.environment.get("execution_provider")
        if profile.placement is None or wanted is None:
            return Measurement.missing(PROVIDER_SHARE.name, "the placement of nodes was not read")
        nodes = profile.placement.nodes
        if not nodes:
            return Measurement.missing(PROVIDER_SHARE.name, "the runtime reports no nodes: all was folded")
        how = ", ".join(f"{count} nodes on {name}" for name, count in sorted(nodes.items()))
        return Measurement.exact(PROVIDER_SHARE.name, profile.placement.share(str(wanted)), how)

    @staticmethod
    def _int8(profile: Profile) -> Measurement:
        audit = profile.int8
        if audit is None:
            return Measurement.missing(INT8_SHARE.name, "the optimized graph was not audited")
        if audit.total == 0:
            return Measurement.missing(INT8_SHARE.name, "the model has no matrix product or convolution")
        how = f"{audit.executed} of {audit.total} products in integer kernels, {audit.claimed} claimed"
        return Measurement.exact(INT8_SHARE.name, audit.executed / audit.total, how)


METER = PlacementMeter()
