"""Is the variant what it claims to be: shares of nodes, time and arithmetic."""

from __future__ import annotations

from autopilot.contracts import Axis, Stage
from autopilot.profile import Measurement, Profile

PROVIDER_SHARE = Axis("provider_node_share", True, Stage.SMOKE, "share of nodes on the execution provider asked for")
TIME_SHARE = Axis(
    "provider_time_share", True, Stage.QUALITY, "share of the operators' time on the execution provider asked for"
)
INT8_SHARE = Axis("int8_node_share", True, Stage.QUALITY, "share of matrix products that run in integer kernels")
MAC_SHARE = Axis("int8_mac_share", True, Stage.QUALITY, "share of multiply-accumulates that run in int8")


class PlacementMeter:
    """Reads ``placement`` and ``operators`` (with ``environment["execution_provider"]``) and ``int8`` of a Profile."""

    name = "placement"
    axes: tuple[Axis, ...] = (PROVIDER_SHARE, TIME_SHARE, INT8_SHARE, MAC_SHARE)

    def axis(self, name: str) -> Axis | None:
        return next((a for a in self.axes if a.name == name), None)

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        read = {TIME_SHARE.name: self._time, INT8_SHARE.name: self._int8, MAC_SHARE.name: self._macs}
        return read.get(axis, self._provider)(profile)

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
    def _time(profile: Profile) -> Measurement:
        wanted = profile.environment.get("execution_provider")
        if profile.operators is None or wanted is None:
            return Measurement.missing(TIME_SHARE.name, "operators are timed for baseline and chosen variant only")
        spent = profile.operators.by_provider()
        if not spent:
            return Measurement.missing(TIME_SHARE.name, "the runtime's profiler saw no time pass in any node")
        how = ", ".join(f"{share:.1%} of the time on {name}" for name, share in sorted(spent.items()))
        return Measurement.exact(TIME_SHARE.name, spent.get(str(wanted), 0.0), how)

    @staticmethod
    def _int8(profile: Profile) -> Measurement:
        audit = profile.int8
        if audit is None:
            return Measurement.missing(INT8_SHARE.name, _unaudited(profile))
        if audit.total == 0:
            return Measurement.missing(INT8_SHARE.name, "the model has no matrix product or convolution")
        how = f"{audit.executed} of {audit.total} products in integer kernels, {audit.claimed} claimed"
        return Measurement.exact(INT8_SHARE.name, audit.executed / audit.total, how)

    @staticmethod
    def _macs(profile: Profile) -> Measurement:
        audit = profile.int8
        if audit is None:
            return Measurement.missing(MAC_SHARE.name, _unaudited(profile))
        if audit.mac_share is None:
            return Measurement.missing(MAC_SHARE.name, "the shapes of some matrix products can't be told")
        how = f"from shapes; {audit.executed} of {audit.total} products in integer kernels"
        return Measurement.exact(MAC_SHARE.name, audit.mac_share, how)


def _unaudited(profile: Profile) -> str:
    return str(profile.environment.get("int8_unaudited") or "the optimized graph was not audited")


METER = PlacementMeter()
