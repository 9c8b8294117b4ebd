"""MLPerf LoadGen's server scenario on a simulated service, in a process of its own: prints percentiles as JSON.

``python loadgen_oracle.py FOLDER RATE_RPS SERVICE_S QUERIES``. A callback that raises aborts the process and a lost
answer hangs it, so the caller gives it a deadline.
"""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
from pathlib import Path

import mlperf_loadgen as lg

# Sleeps end late: the last part of a service is waited for awake.
_SPIN_S = 0.0005
_LINE = re.compile(r"(\d+\.\d+) percentile latency \(ns\)\s*:\s*(\d+)")


def main() -> None:
    """One server answers first come first served, each query in the same time; latency is LoadGen's own figure."""
    folder, rate_rps, service_s, queries = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            number = waiting.get()
            end = time.perf_counter() + service_s
            time.sleep(service_s - _SPIN_S)
            while time.perf_counter() < end:
                pass
            lg.QuerySamplesComplete([lg.QuerySampleResponse(number, 0, 0)])

    threading.Thread(target=serve, daemon=True).start()
    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.Server, lg.TestMode.PerformanceOnly
    settings.server_target_qps = rate_rps
    settings.server_target_latency_ns = 10_000_000_000
    settings.min_query_count = settings.max_query_count = queries
    settings.min_duration_ms = 0
    logs = lg.LogSettings()
    output = lg.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    logs.log_output, logs.enable_trace = output, False
    sut = lg.ConstructSUT(lambda samples: [waiting.put(s.id) for s in samples] and None, lambda: None)
    qsl = lg.ConstructQSL(64, 64, lambda samples: None, lambda samples: None)
    lg.StartTestWithLogSettings(sut, qsl, settings, logs, "")
    summary = (folder / "mlperf_log_summary.txt").read_text()
    print(json.dumps({float(q): int(ns) / 1e9 for q, ns in _LINE.findall(summary)}), flush=True)


if __name__ == "__main__":
    main()
