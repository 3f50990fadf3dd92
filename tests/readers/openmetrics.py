"""Metric families of an OpenMetrics text, by the strict parser of Prometheus' client library."""

import json
import sys

from prometheus_client.openmetrics.parser import text_fd_to_metric_families

with open(sys.argv[1], encoding="utf-8", newline="") as file:
    families = [
        {
            "name": family.name,
            "type": family.type,
            "unit": family.unit,
            "samples": [
                {
                    "name": sample.name,
                    "labels": sample.labels,
                    "value": sample.value,
                    "unix_s": None if sample.timestamp is None else float(sample.timestamp),
                }
                for sample in family.samples
            ],
        }
        for family in text_fd_to_metric_families(file)
    ]
json.dump(families, sys.stdout)
