"""Histograms of an interval log, by the log reader of the HdrHistogram project."""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 1 << 40, 2))
found = []
while (histogram := reader.get_next_interval_histogram()) is not None:
    found.append(
        {
            "tag": histogram.get_tag(),
            "start_ms": histogram.get_start_time_stamp(),
            "end_ms": histogram.get_end_time_stamp(),
            "count": histogram.get_total_count(),
            "min": histogram.get_min_value(),
            "max": histogram.get_max_value(),
            "p50": histogram.get_value_at_percentile(50),
        }
    )
json.dump(found, sys.stdout)
