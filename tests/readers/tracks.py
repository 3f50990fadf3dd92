"""Tracks of a Perfetto trace and what is on them, by the definitions that the Perfetto project publishes for Python.

Checks what its trace processor relies on: one sequence that begins with cleared state, tracks described before they are
used, values on counter tracks alone, slices that begin before they end and do not overlap.
"""

import json
import sys

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import ClockSnapshot, Trace, TracePacket, TrackEvent

trace = Trace()
with open(sys.argv[1], "rb") as file:
    trace.ParseFromString(file.read())

known = Trace()
known.CopyFrom(trace)
known.DiscardUnknownFields()
assert known == trace, "fields that the definitions do not have"

first = trace.packet[0]
assert first.sequence_flags == TracePacket.SEQ_INCREMENTAL_STATE_CLEARED, first
clocks = {clock.clock_id: clock.timestamp for clock in first.clock_snapshot.clocks}
realtime = clocks[ClockSnapshot.Clock.REALTIME] - clocks[ClockSnapshot.Clock.BOOTTIME]

tracks = {}
open_slices = {}
for packet in trace.packet:
    assert packet.trusted_packet_sequence_id == first.trusted_packet_sequence_id, packet
    if packet.HasField("track_descriptor"):
        track = packet.track_descriptor
        assert track.uuid not in tracks, track
        assert track.parent_uuid == 0 or track.parent_uuid in tracks, track
        parent = tracks.get(track.parent_uuid)
        path = (parent["path"] if parent else []) + [track.name]
        tracks[track.uuid] = {
            "path": path,
            "unit": track.counter.unit if track.HasField("counter") else None,
            "values": [],
            "slices": [],
            "instants": [],
        }
    if packet.HasField("track_event"):
        event = packet.track_event
        track = tracks[event.track_uuid]
        assert track["unit"] is not None or event.type != TrackEvent.TYPE_COUNTER, event
        unix_ns = packet.timestamp + realtime
        values = {note.name: note.string_value or note.uint_value for note in event.debug_annotations}
        if event.type == TrackEvent.TYPE_COUNTER:
            track["values"].append({"unix_ns": unix_ns, "value": event.counter_value})
        elif event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in open_slices, event
            ends = [done["unix_ns"] + done["duration_ns"] for done in track["slices"]]
            assert not ends or ends[-1] <= unix_ns, event
            open_slices[event.track_uuid] = {"name": event.name, "unix_ns": unix_ns, "values": values}
        elif event.type == TrackEvent.TYPE_SLICE_END:
            begun = open_slices.pop(event.track_uuid)
            assert begun["unix_ns"] <= unix_ns, event
            track["slices"].append(begun | {"duration_ns": unix_ns - begun["unix_ns"]})
        else:
            assert event.type == TrackEvent.TYPE_INSTANT, event
            track["instants"].append({"name": event.name, "unix_ns": unix_ns, "values": values})
assert not open_slices, open_slices
json.dump(list(tracks.values()), sys.stdout)
