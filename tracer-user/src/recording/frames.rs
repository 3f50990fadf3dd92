//! Takes a recording apart into its frames, and finds the way on after a damaged one.

use std::io::{self, Read};

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::MAX_FRAME;

/// First bytes of a frame (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The checksum bit of the frame header's descriptor, the byte after the magic (RFC 8878, section 3.1.1.1.1).
const CHECKSUM_FLAG: u8 = 1 << 2;

/// Largest window that a frame may ask for: 2^26 is [`MAX_FRAME`].
const WINDOW_LOG_MAX: u32 = 26;

/// How much is read at a time.
const CHUNK: usize = 64 << 10;

/// What was wrong on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Stretches that were skipped: a damaged frame, or several in a row.
    pub stretches: u64,
    /// Bytes of the file in them.
    pub bytes: u64,
    /// Where in the file the first one begins.
    pub first_at: Option<u64>,
    /// Bytes of a last frame that was cut off. That alone is what a killed tracer leaves, not damage.
    pub cut_off: u64,
}

/// How an attempt at a frame ended.
enum Attempt {
    /// Its packed length.
    Whole(usize),
    Damaged,
    /// The file ends within it.
    CutOff,
}

/// Unpacks frame after frame. Nothing of a frame is given out before its checksum was found right.
pub(super) struct Frames<R> {
    source: R,
    /// Bytes of the file from `offset` on.
    packed: Vec<u8>,
    offset: u64,
    at_end: bool,
    decoder: Decoder<'static>,
    unpacked: Vec<u8>,
    damage: Damage,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(source: R) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Self {
            source,
            packed: Vec::new(),
            offset: 0,
            at_end: false,
            decoder,
            unpacked: Vec::new(),
            damage: Damage::default(),
        })
    }

    pub(super) fn damage(&self) -> Damage {
        self.damage
    }

    /// The file's first bytes, at most four.
    pub(super) fn first_bytes(&mut self) -> io::Result<&[u8]> {
        while self.packed.len() < MAGIC.len() && self.fill()? {}
        Ok(&self.packed[..self.packed.len().min(MAGIC.len())])
    }

    /// What the frame at hand holds. After `advance` returned true.
    pub(super) fn lines(&self) -> &[u8] {
        &self.unpacked
    }

    /// Goes to the next whole frame; false at the end.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        loop {
            if self.packed.is_empty() && !self.fill()? {
                self.unpacked.clear();
                return Ok(false);
            }
            match self.attempt()? {
                Attempt::Whole(length) => {
                    self.consume(length);
                    return Ok(true);
                }
                Attempt::Damaged => self.skip_to_magic()?,
                // A flipped length makes a frame swallow those after it, so a magic in there means damage.
                Attempt::CutOff if find_magic(&self.packed, 1).is_some() => self.skip_to_magic()?,
                Attempt::CutOff => {
                    self.damage.cut_off += self.packed.len() as u64;
                    self.consume(self.packed.len());
                    self.unpacked.clear();
                    return Ok(false);
                }
            }
        }
    }

    /// Unpacks the frame at the start of `packed`.
    fn attempt(&mut self) -> io::Result<Attempt> {
        self.unpacked.clear();
        self.decoder.reinit()?;
        let mut position = 0;
        loop {
            if !self.plausible() {
                return Ok(Attempt::Damaged);
            }
            while position < self.packed.len() {
                match self.step(&mut position) {
                    Ok(0) => return Ok(Attempt::Whole(position)),
                    Ok(_) if self.unpacked.len() <= MAX_FRAME => {}
                    Ok(_) | Err(_) => return Ok(Attempt::Damaged),
                }
            }
            if self.packed.len() > MAX_FRAME {
                return Ok(Attempt::Damaged);
            }
            if !self.fill()? {
                return Ok(Attempt::CutOff);
            }
        }
    }

    /// Whether `packed`, as far as it goes, begins like a frame with a checksum (or like one to be skipped).
    fn plausible(&self) -> bool {
        let magic = &self.packed[..self.packed.len().min(MAGIC.len())];
        if is_skippable(magic) {
            return true;
        }
        MAGIC.starts_with(magic)
            && self
                .packed
                .get(MAGIC.len())
                .is_none_or(|flags| flags & CHECKSUM_FLAG != 0)
    }

    /// Feeds the decoder once; 0 means that the frame is whole.
    fn step(&mut self, position: &mut usize) -> io::Result<usize> {
        let written = self.unpacked.len();
        self.unpacked.resize(written + CHUNK, 0);
        let mut output = OutBuffer::around_pos(&mut self.unpacked, written);
        let mut input = InBuffer::around(&self.packed[*position..]);
        let hint = self.decoder.run(&mut input, &mut output);
        let (read, written) = (input.pos(), output.pos());
        self.unpacked.truncate(written);
        *position += read;
        hint
    }

    /// Goes on at the next magic behind the first byte, counting what is left out.
    fn skip_to_magic(&mut self) -> io::Result<()> {
        self.damage.stretches += 1;
        self.damage.first_at.get_or_insert(self.offset);
        let mut from = 1;
        loop {
            if let Some(at) = find_magic(&self.packed, from) {
                self.damage.bytes += at as u64;
                self.consume(at);
                return Ok(());
            }
            // The last three bytes may be the beginning of a magic.
            let keep = self.packed.len().min(MAGIC.len() - 1);
            let skip = (self.packed.len() - keep).max(from.min(self.packed.len()));
            self.damage.bytes += skip as u64;
            self.consume(skip);
            from = 0;
            if !self.fill()? {
                self.damage.bytes += self.packed.len() as u64;
                self.consume(self.packed.len());
                return Ok(());
            }
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.packed.drain(..bytes);
        self.offset += bytes as u64;
    }

    /// Reads on; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        let length = self.packed.len();
        let read = (&mut self.source).take(CHUNK as u64).read_to_end(&mut self.packed);
        if let Err(error) = read {
            self.packed.truncate(length);
            return Err(error);
        }
        self.at_end = self.packed.len() == length;
        Ok(!self.at_end)
    }
}

/// Whether a file that begins so can be a recording: a frame, or one to be skipped, or the beginning of either.
pub(super) fn begins_like_a_frame(bytes: &[u8]) -> bool {
    MAGIC.starts_with(bytes) || is_skippable(bytes)
}

/// Frames that carry no data: their magic is 0x184D2A50 to 0x184D2A5F (RFC 8878, section 3.1.2).
fn is_skippable(magic: &[u8]) -> bool {
    matches!(magic, [low, 0x2a, 0x4d, 0x18] if low & 0xf0 == 0x50)
}

fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let at = bytes.get(from..)?.windows(MAGIC.len()).position(|four| four == MAGIC)?;
    Some(from + at)
}
