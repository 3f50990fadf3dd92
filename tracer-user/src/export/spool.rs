//! Many series that grow side by side, to be read one after another: beyond a few points of each they wait in a
//! temporary file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

/// Points of a series that wait in memory, 2 KiB.
const CHUNK: usize = 128;

/// Bytes of a point in the file.
const POINT: usize = 16;

/// A figure at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// The figure.
    pub value: i64,
}

/// A series so far.
#[derive(Debug, Default)]
struct Series {
    /// Where its chunks begin in the file.
    chunks: Vec<u64>,
    waiting: Vec<Point>,
}

/// The series, by what they are of.
#[derive(Debug)]
pub(super) struct Spool<K> {
    file: File,
    end: u64,
    series: BTreeMap<K, Series>,
}

impl<K: Ord> Spool<K> {
    /// An empty one, whose file has no name and goes with it.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            end: 0,
            series: BTreeMap::new(),
        })
    }

    /// Adds a point.
    pub(super) fn push(&mut self, key: K, point: Point) -> io::Result<()> {
        let series = self.series.entry(key).or_default();
        series.waiting.push(point);
        if series.waiting.len() < CHUNK {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(CHUNK * POINT);
        for point in series.waiting.drain(..) {
            bytes.extend(point.unix_ms.to_ne_bytes());
            bytes.extend(point.value.to_ne_bytes());
        }
        self.file.write_all(&bytes)?;
        series.chunks.push(self.end);
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Gives each series to `take`, by key, with its points in order of time, each time once: the last one counts.
    pub(super) fn drain(&mut self, mut take: impl FnMut(&K, &[Point]) -> io::Result<()>) -> io::Result<()> {
        for (key, series) in std::mem::take(&mut self.series) {
            let mut points = Vec::with_capacity(series.chunks.len() * CHUNK + series.waiting.len());
            let mut bytes = vec![0; CHUNK * POINT];
            for offset in &series.chunks {
                self.file.read_exact_at(&mut bytes, *offset)?;
                points.extend(bytes.as_chunks().0.as_chunks().0.iter().map(point));
            }
            points.extend(series.waiting);
            points.sort_by_key(|point| point.unix_ms);
            points.dedup_by(|next, kept| {
                let same = next.unix_ms == kept.unix_ms;
                if same {
                    *kept = *next;
                }
                same
            });
            take(&key, &points)?;
        }
        Ok(())
    }
}

const fn point([time, value]: &[[u8; POINT / 2]; 2]) -> Point {
    Point {
        unix_ms: u64::from_ne_bytes(*time),
        value: i64::from_ne_bytes(*value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_come_back_whole_and_in_order() {
        let mut spool = Spool::new().unwrap();
        let mut expected: BTreeMap<u64, Vec<Point>> = BTreeMap::new();
        for n in 0..10_000_u64 {
            let point = Point {
                unix_ms: n,
                value: i64::try_from(n).unwrap() - 5000,
            };
            let key = n * n % 7;
            spool.push(key, point).unwrap();
            expected.entry(key).or_default().push(point);
        }
        // Told late, and told again.
        let late = Point { unix_ms: 0, value: 1 };
        spool.push(0, late).unwrap();
        expected.get_mut(&0).unwrap()[0] = late;
        let mut found = BTreeMap::new();
        spool
            .drain(|key, points| {
                found.insert(*key, points.to_vec());
                Ok(())
            })
            .unwrap();
        assert_eq!(found, expected);
    }
}
