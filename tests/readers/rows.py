"""Rows of a CSV file, by Python's own reader in its strict mode."""

import csv
import json
import sys

with open(sys.argv[1], newline="", encoding="utf-8") as file:
    json.dump(list(csv.DictReader(file, strict=True)), sys.stdout)
