use proptest::prelude::*;
use tracer_common::{Kind, Region};

use super::super::event::{Charge, Footer, Loss, Reclaim};
use super::super::writer::Writer;
use super::*;

fn header() -> Event {
    Event {
        t: 0,
        body: Body::Header(Header {
            format: FORMAT.to_owned(),
            ..Header::default()
        }),
    }
}

fn charge(t: u64, charged: u64) -> Event {
    Event {
        t,
        body: Body::Charge(Charge {
            memcg: 7,
            tid: 42,
            start_ns: 1,
            kind: Kind::Anon,
            region: Region::Overhead,
            charged,
            uncharged: 0,
        }),
    }
}

/// An event that is written as it is, unlike charges, which are added up.
fn reclaim(t: u64, duration_ns: u64) -> Event {
    Event {
        t,
        body: Body::Reclaim(Reclaim {
            memcg: 7,
            tid: 42,
            start_ns: 1,
            duration_ns,
            pages: 0,
            order: 0,
        }),
    }
}

fn footer(t: u64) -> Event {
    Event {
        t,
        body: Body::Footer(Footer::default()),
    }
}

/// Five seconds of ten events each, and a footer.
fn events() -> Vec<Event> {
    let reclaims = (0..50).map(|n| reclaim(n * 100_000_000, 4096 * (n + 1) * (n % 7 + 1)));
    let mut events = vec![header()];
    events.extend(reclaims);
    events.push(footer(5_000_000_000));
    events
}

fn write(events: &[Event]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, "test").unwrap();
    for event in events {
        writer.push(event).unwrap();
    }
    writer.finish().unwrap();
    drop(writer);
    file
}

fn pack(lines: &str) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    compressor.compress(lines.as_bytes()).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Event>, Summary), ReadError> {
    let mut reader = Reader::new(bytes)?;
    let events = reader.by_ref().collect::<Result<_, _>>()?;
    Ok((events, reader.summary()))
}

/// Whether `part` is `whole` with some events left out.
fn is_subsequence(part: &[Event], whole: &[Event]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|event| whole.any(|other| other == event))
}

fn frame_starts(file: &[u8]) -> Vec<usize> {
    (0..file.len())
        .filter(|at| file[*at..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
        .collect()
}

#[test]
fn what_was_written_is_read() {
    let (read, summary) = read(&write(&events())).unwrap();
    assert_eq!(read, events());
    assert_eq!(summary.state, State::Complete);
    assert_eq!(summary.skipped, Skipped::default());
}

#[test]
fn a_killed_recorder_leaves_an_incomplete_recording() {
    let file = write(&events());
    let starts = frame_starts(&file);
    let last = *starts.last().unwrap();
    for end in [last, last + 1, last + 5, file.len() - 1] {
        let (read, summary) = read(&file[..end]).unwrap();
        assert_eq!(summary.state, State::Incomplete, "cut at {end}");
        assert_eq!(summary.damage.cut_off, (end - last) as u64);
        assert_eq!(read, events()[..51]);
    }
}

#[test]
fn a_damaged_frame_costs_only_itself() {
    let mut file = write(&events());
    let starts = frame_starts(&file);
    file[starts[2] + 30] ^= 0x10;
    let (read, summary) = read(&file).unwrap();
    assert_eq!(summary.state, State::Damaged);
    assert_eq!(summary.damage.stretches, 1);
    assert_eq!(summary.damage.first_at, Some(starts[2] as u64));
    assert_eq!(summary.damage.bytes, (starts[3] - starts[2]) as u64);
    assert_eq!(read.len(), events().len() - 10);
    assert!(is_subsequence(&read, &events()));
}

#[test]
fn a_frame_that_swallows_the_rest_is_damage_not_an_end() {
    let mut file = write(&events());
    let starts = frame_starts(&file);
    // A first block of 128 KiB, uncompressed, reaches beyond the end of the file. Its header stands behind the frame's:
    // descriptor and one or two bytes of content size.
    let size_bytes = match file[starts[2] + 4] >> 6 {
        0 => 1,
        _ => 2,
    };
    let block = starts[2] + 5 + size_bytes;
    file[block..block + 3].copy_from_slice(&[0, 0, 0x0f]);
    let (read, summary) = read(&file).unwrap();
    assert_eq!(summary.state, State::Damaged);
    assert_eq!(read.len(), events().len() - 10);
}

#[test]
fn a_frame_without_checksum_is_not_believed() {
    let mut file = write(&[header()]);
    let line = serde_json::to_vec(&charge(1, 4096)).unwrap();
    file.extend(zstd::bulk::compress(&line, 3).unwrap());
    file.extend(pack(&format!("{}\n", serde_json::to_string(&footer(2)).unwrap())));
    let (read, summary) = read(&file).unwrap();
    assert_eq!(summary.state, State::Damaged);
    assert_eq!(read, [header(), footer(2)]);
}

#[test]
fn a_charge_reads_the_same_by_the_short_way_and_the_long() {
    let line = serde_json::to_string(&charge(9, 4096)).unwrap();
    let other_order = line.replace("{\"t\":9,", "{").replace('}', ",\"t\":9}");
    let with_space = line.replace(':', ": ");
    for line in [&line, &other_order, &with_space] {
        assert_eq!(parse(line.as_bytes()), Some(charge(9, 4096)), "{line}");
    }
    assert!(parse_charge(line.as_bytes()).is_some());
    assert!(parse_charge(other_order.as_bytes()).is_none());
}

#[test]
fn later_types_fields_and_kinds_are_skipped() {
    let mut file = write(&[header()]);
    file.extend(pack(concat!(
        "{\"t\":1,\"type\":\"weather\",\"rain\":true}\n",
        "{\"t\":2,\"type\":\"loss\",\"ring_full\":1,\"accounts_full\":0,\"lost_bytes\":0,\"events_dropped\":0,\
         \"files_full\":0,\"max_delay_ns\":0,\"new\":[1]}\n",
        "{\"t\":3,\"type\":\"charge\",\"memcg\":1,\"tid\":1,\"start_ns\":1,\"kind\":\"cxl\",\"region\":\"guest\",\
         \"charged\":1,\"uncharged\":0}\n",
        "{\"t\":4,\"type\":\"sample\",\"memcg\":1,\"pod\":0,\"usage\":9,\"limit\":null,\"peak\":null,\
         \"stat\":{\"cxl\":1,\"anon\":2},\"reclaimable_file\":0,\"guest_resident\":null,\
         \"pressure_some_us\":null,\"limit_hits\":0,\"oom_kills\":0}\n",
        "not json\n",
    )));
    let (read, summary) = read(&file).unwrap();
    let times: Vec<u64> = read.iter().map(|event| event.t).collect();
    assert_eq!(times, [0, 2, 4]);
    assert!(matches!(&read[1].body, Body::Loss(Loss { ring_full: 1, .. })));
    assert_eq!(
        summary.skipped,
        Skipped {
            unknown_types: 1,
            unreadable: 2,
            ..Skipped::default()
        }
    );
    assert_eq!(summary.state, State::Incomplete);
}

#[test]
fn a_second_recording_in_the_file_is_not_added_to_the_first() {
    let file = [write(&events()[..20]), write(&events())].concat();
    let (read, summary) = read(&file).unwrap();
    assert_eq!(read, events()[..20]);
    assert_eq!(summary.state, State::Damaged);
}

#[test]
fn a_line_beyond_every_measure_is_skipped() {
    let mut file = write(&[header()]);
    let long = format!("{{\"t\":1,\"type\":\"loss\",\"x\":\"{}\"}}\n", "a".repeat(MAX_LINE));
    file.extend(pack(&(long + &serde_json::to_string(&footer(2)).unwrap())));
    let (read, summary) = read(&file).unwrap();
    assert_eq!(read, [header(), footer(2)]);
    assert_eq!(summary.skipped.too_long, 1);
}

#[test]
fn what_is_no_recording_is_told_so() {
    let is = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert_eq!(is(b""), ReadError::Empty.to_string());
    assert_eq!(is(b"{\"t\":0}"), ReadError::NotARecording.to_string());
    assert_eq!(is(&pack("hello\n")), ReadError::NotARecording.to_string());
    assert_eq!(
        is(&pack("{\"t\":0,\"type\":\"header\",\"format\":\"other/1\"}")),
        ReadError::NotARecording.to_string()
    );
    assert_eq!(
        is(&pack(
            "{\"t\":0,\"type\":\"header\",\"format\":\"headroom.recording/2\"}"
        )),
        "it is written in headroom.recording/2, and this headroom reads up to headroom.recording/1: use a newer headroom"
    );
    let file = write(&events());
    assert_eq!(is(&file[..10]), ReadError::NoHeader.to_string());
    let mut damaged = file;
    damaged[20] ^= 1;
    assert_eq!(is(&damaged), ReadError::HeaderDamaged.to_string());
}

/// A frame that unpacks to far more than any recorder writes.
#[test]
fn a_bomb_is_not_unpacked() {
    let mut file = write(&[header()]);
    let mut encoder = zstd::stream::Encoder::new(&mut file, 1).unwrap();
    encoder.include_checksum(true).unwrap();
    io::copy(&mut io::repeat(0).take(256 << 20), &mut encoder).unwrap();
    encoder.finish().unwrap();
    file.extend(pack(&serde_json::to_string(&footer(2)).unwrap()));
    let mut reader = Reader::new(&file[..]).unwrap();
    assert_eq!(
        reader.by_ref().map(Result::unwrap).collect::<Vec<_>>(),
        [header(), footer(2)]
    );
    assert_eq!(reader.summary().state, State::Damaged);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&bytes).is_err());
        let behind_header = [write(&[header()]), bytes].concat();
        prop_assert_eq!(read(&behind_header).unwrap().0, [header()]);
    }

    #[test]
    fn arbitrary_lines_never_panic(lines in "\\PC*", json in "(\\{\"t\":1,\"type\":\"(oom|pod|charge)\".{0,20}\\}\n)*") {
        let file = [write(&[header()]), pack(&lines), pack(&json)].concat();
        let (events, _) = read(&file).unwrap();
        prop_assert_eq!(events.first(), Some(&header()));
    }

    #[test]
    fn any_cut_gives_a_prefix(cut in any::<prop::sample::Index>()) {
        let file = write(&events());
        let cut = cut.index(file.len());
        if let Ok((read, summary)) = read(&file[..cut]) {
            prop_assert_eq!(summary.state, State::Incomplete);
            prop_assert!(events().starts_with(&read));
        }
    }

    #[test]
    fn flipped_bits_give_only_what_was_written(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6),
    ) {
        let mut file = write(&events());
        for (at, bit) in &flips {
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
        }
        if let Ok((read, summary)) = read(&file) {
            prop_assert!(is_subsequence(&read, &events()));
            prop_assert!(summary.state != State::Complete || read == events());
        }
    }
}
